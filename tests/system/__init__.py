"""Tests with programs of the operating system: a real Prometheus, and whatever else judges us as operators would.

    @pytest.mark.system("prometheus")          # the programs that a test starts
    def test_it_scrapes() -> None:
        subprocess.Popen([tools.path("prometheus"), ...])

Which programs there are, and which Debian package brings each, stands in packages.txt and nowhere else. A test whose
program is missing is skipped on a developer's machine, and the end of the run says so; `.ci/run` installs the packages
first and takes no skip.
"""
