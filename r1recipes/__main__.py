"""`r1recipes` and `python -m r1recipes`: the command line, which Ctrl-C may also stop while it is
still being imported.

Limits: nothing is imported here before Ctrl-C is caught.
"""

import sys


def main() -> int:
    """Run one command and return its exit code."""
    try:
        from r1recipes import cli

        return cli.main()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
