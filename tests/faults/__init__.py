"""The fault laboratory: what becomes of calls when everything around the sidecar fails? See README.md here."""
