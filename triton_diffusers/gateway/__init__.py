"""The HTTP gateway: front doors for clients, in front of the job table that runners work off."""
