"""The clients, generated, compiled and run once for all tests."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from config import VERSION
from tests import tools
from tests.clients import GENERATORS, GO, HEY_API, PYDANTIC, PYTHON, TYPESCRIPT, Generator, run
from tests.clients.examples import EXAMPLES, example
from tests.clients.later import IDS, later_gateway
from tests.clients.wrong import WRONG
from tests.support import ROOT, UNKNOWN_ID, Gateway

KEY: Final = "pgw_test_" + "c" * 43
PROGRAMS: Final = ROOT / "tests" / "clients" / "programs"

# How to run the program of each client where it is compiled.
RUN: Final = {
    PYTHON: ("python", "pay_python.py"),
    PYDANTIC: ("python", "pay_python_pydantic.py"),
    GO: ("env", "bin/pay"),  # env, because there is no program if the client does not compile
    TYPESCRIPT: ("node", "js/pay_typescript.js"),
    HEY_API: ("node", "js/pay_hey_api.js"),
}


@pytest.fixture(scope="session")
def merchants_gateway() -> Iterator[Gateway]:
    """A gateway that requires a key."""
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    with Gateway(key=KEY, API_KEYS=f"acme:{digest}") as running:
        yield running


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A merchant's folder, with the packages that clients need, and without the clients."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "node_modules").symlink_to(tools.MODULES)
    (folder / "package.json").write_text('{"type": "module"}')
    options = {"strict": True, "module": "nodenext", "target": "es2023", "outDir": "js", "skipLibCheck": True}
    project = {"compilerOptions": options, "include": ["*.ts", "*.mts", "gateway-typescript"]}
    (folder / "tsconfig.json").write_text(json.dumps(project))
    (folder / "go.mod").write_text("module shop\n\ngo 1.23\n")
    (folder / "mypy.ini").write_text(
        "[mypy]\nstrict = true\ncache_dir = /dev/null\nmypy_path = gateway-python:gateway-python-pydantic\n"
        # Most functions of this client have no types. Where it is installed, mypy does not check it either.
        "[mypy-payment_gateway_client.*]\nfollow_imports = silent\n"
    )
    return folder


@pytest.fixture(scope="session")
def unusual(merchants_gateway: Gateway, shop: Path) -> Mapping[Generator, set[str]]:
    """What each generator prints in addition to normal lines; afterwards the clients are in the shop."""
    url = f"{merchants_gateway.api}/openapi.json"
    with ThreadPoolExecutor() as pool:
        lines = pool.map(lambda generator: generator.generate(url, VERSION, shop), GENERATORS)
        return dict(zip(GENERATORS, lines, strict=True))


@pytest.fixture(scope="session")
def checked(unusual: object, merchants_gateway: Gateway, shop: Path) -> Mapping[str, str]:
    """What the type checkers print about the clients and all programs; afterwards the programs are compiled."""
    assert unusual is not None
    for name in ("pay", "example", "wrong"):
        (shop / name).mkdir()
    for program in PROGRAMS.iterdir():
        shutil.copy(program, shop / "pay" if program.suffix == ".go" else shop)
    for name, (source, _) in WRONG.items():
        (shop / name).write_text(source)
    for language, (name, _) in EXAMPLES.items():
        (shop / name).write_text(example(language, merchants_gateway.api))
    shutil.copy(shop / "gateway.d.ts", shop / "declarations.ts")  # skipLibCheck leaves out what has declarations only
    python = sorted(path.name for path in shop.glob("*.py"))
    commands = {
        "mypy": ("mypy", *python),
        "tsc": ("tsc", "--project", ".", "--pretty", "false"),
        "go": ("go", "build", "-o", "bin/", "./pay", "./example", "./wrong"),
    }
    with ThreadPoolExecutor() as pool:
        ran = pool.map(lambda words: run(shop, *words).stdout, commands.values())
        return dict(zip(commands, ran, strict=True))


@pytest.fixture(scope="session")
def ran(
    checked: object, merchants_gateway: Gateway, shop: Path
) -> Mapping[Generator, "subprocess.CompletedProcess[str]"]:
    """The program of each client, after it has run."""
    assert checked is not None
    with later_gateway() as later, ThreadPoolExecutor() as pool:
        variables = {
            "API": merchants_gateway.api,
            "API_KEY": KEY,
            "UNKNOWN_ID": UNKNOWN_ID,
            "LATER_API": later,
            "LATER_IDS": json.dumps(IDS),
            "PYTHONPATH": "gateway-python:gateway-python-pydantic",
        }
        return dict(zip(RUN, pool.map(lambda words: run(shop, *words, **variables), RUN.values()), strict=True))


@pytest.fixture(params=GENERATORS, ids=lambda generator: generator.output)
def client(request: pytest.FixtureRequest) -> Any:
    """Each client, by its generator."""
    return request.param


@pytest.fixture
def seen(client: Generator, ran: Mapping[Generator, "subprocess.CompletedProcess[str]"]) -> Any:
    """What the program of this client has seen."""
    assert ran[client].returncode == 0, ran[client].stdout
    return json.loads(ran[client].stdout)
