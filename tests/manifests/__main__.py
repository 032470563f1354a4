"""Write golden/ anew."""

from tests.manifests import FILES, FOLDER, inject, text_of

for name in FILES:
    (FOLDER / "golden" / name).write_bytes(inject(text_of(name)).text.encode())
