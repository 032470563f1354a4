"""Is the proxy well, and may it be sent calls?"""
