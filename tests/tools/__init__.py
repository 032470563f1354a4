"""What the tests need besides Python packages, fetched by the tests themselves."""
