"""`python -m jaxtraffic`: see `jaxtraffic.command.main`."""

from jaxtraffic.command.main import main

if __name__ == "__main__":
    main()
