"""Generate a client with each generator, from the document that a gateway serves: `make clients`."""

import argparse
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from tests.clients import GENERATORS


def main() -> None:
    """Replace the folder by new clients."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__)
    parser.add_argument("url", help="the gateway, for example http://127.0.0.1:8000")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    url = f"{arguments.url}/api/v1/openapi.json"
    version = requests.get(url, timeout=10).json()["info"]["version"]
    shutil.rmtree(arguments.folder, ignore_errors=True)
    arguments.folder.mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        lines = pool.map(lambda generator: generator.generate(url, version, arguments.folder), GENERATORS)
        for generator, unusual in zip(GENERATORS, lines, strict=True):
            print(arguments.folder / generator.output, *(unusual - generator.warnings.keys()), sep="\n  ")


if __name__ == "__main__":
    main()
