"""Requests and replies of the API about accounts: sessions, tokens, registration, invitations, links for a new password.

Must never hold a rule of a service: only shapes and sizes. Called by the views of accounts and tickets.
"""

from __future__ import annotations

import marshmallow as ma
from marshmallow import fields

from webapp.views.schemas import Strict, text_field


class Credentials(Strict):
    name = text_field(64, required=True)
    password = text_field(256, required=True)


class NewUser(Credentials):
    is_admin = fields.Boolean(load_default=False, metadata={"description": "Only an admin may set this."})


class AccountChange(Strict):
    is_admin = fields.Boolean()
    is_active = fields.Boolean()


class Registration(Credentials):
    code = text_field(100, load_default="", metadata={"description": "Of an invitation; not needed where registration is open."})


class Code(Strict):
    code = text_field(100, required=True)


class NewPassword(Code):
    password = text_field(256, required=True)


class NewInvitation(Strict):
    uses = fields.Integer(load_default=1, metadata={"description": "How many people may use it."})
    days = fields.Integer(load_default=7, metadata={"description": "How long it is good."})


class NewProjectInvitation(NewInvitation):
    role = text_field(20, load_default="annotator")


class Ticket(ma.Schema):
    id = fields.Integer()
    project = fields.String(metadata={"description": "Slug of the project it leads into, '' = to the app alone."})
    role = fields.String()
    made_by = fields.String()
    uses_left = fields.Integer()
    expires_at = fields.Float()


class MadeTicket(Ticket):
    code = fields.String(metadata={"description": "Shown once."})
    url = fields.String(metadata={"description": "The page to send to the person, with the code behind '#'."})


class Tickets(ma.Schema):
    invitations = fields.List(fields.Nested(Ticket))


class Joined(ma.Schema):
    project = fields.String()


class NewToken(Strict):
    label = text_field(64, load_default="script", metadata={"description": "What the token is for."})
    name = text_field(64, load_default="", metadata={"description": "With password: log in for this call alone."})
    password = text_field(256, load_default="")


class PasswordChange(Strict):
    old = text_field(256, required=True)
    new = text_field(256, required=True)


class Person(ma.Schema):
    id = fields.Integer()
    name = fields.String()
    is_admin = fields.Boolean()
    is_active = fields.Boolean()


class Session(Person):
    csrf = fields.String(metadata={"description": "Send it as X-CSRFToken with every change made under the cookie."})


class People(ma.Schema):
    users = fields.List(fields.Nested(Person))


class Token(ma.Schema):
    id = fields.Integer()
    label = fields.String()
    token = fields.String(metadata={"description": "Shown once. Send it as 'Authorization: Bearer <token>'."})


class TokenLine(ma.Schema):
    id = fields.Integer()
    label = fields.String()
    created_at = fields.Float()


class Tokens(ma.Schema):
    tokens = fields.List(fields.Nested(TokenLine))
