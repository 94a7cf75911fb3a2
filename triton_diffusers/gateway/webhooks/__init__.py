"""Webhooks: messages to callers' URLs that their jobs have ended."""
