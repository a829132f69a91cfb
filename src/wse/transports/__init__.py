"""Carriers of messages: each module here fills the port in `base`."""
