"""Webhooks: kept by people, filled in the transaction of each event, signed and sent by the pilot."""
