"""Exports in the background: one format a module, each grows page by page and goes on where it was. `formats` names them all."""
