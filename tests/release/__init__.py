"""Is what we ship whole? Packages, their bill of materials, and the image, each made and used here.

`python -m tests.release` prints how large an installation is, when it is ready, and how much memory it has, for a wheel
and for what the Dockerfile makes.
"""
