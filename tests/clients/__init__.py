"""The generators of clients, and the commands that generate clients from a served document."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests import tools


def run(folder: Path, *words: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a program of the tools in a folder, with variables in its environment; its output has its errors, too."""
    return subprocess.run(
        words,
        cwd=folder,
        env={**tools.environment(), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )


@dataclass(frozen=True, eq=False)
class Generator:
    """A generator and how it is called.

    output: what it writes, a folder or a file in the folder where it runs
    command: the command, with {url} of the document, {output}, and {version} of the contract
    normal: a pattern of the lines that it prints when all is well
    warnings: the other lines that it prints for our contract, each with the reason why it stays
    """

    output: str
    command: str
    normal: str
    warnings: Mapping[str, str] = field(default_factory=dict)

    def generate(self, url: str, version: str, folder: Path) -> set[str]:
        """Write a client from the document at this URL, and return the lines that are not normal; fails if it fails."""
        words = [word.format(url=url, output=self.output, version=version) for word in self.command.split()]
        ran = run(folder, *words, RUFF_NO_CACHE="true")  # openapi-python-client formats with Ruff
        assert ran.returncode == 0, f"{self.output}: {ran.stdout}"
        lines = re.sub(r"\x1b\[\d+m", "", ran.stdout).splitlines()
        return {line for line in lines if line and not re.fullmatch(self.normal, line)}


OPENAPI_GENERATOR = r"\[main\] INFO .*|#.*"

PYTHON: Final = Generator(
    "gateway-python",
    "openapi-python-client generate --url {url} --output-path {output} --meta uv",
    normal="Generating gateway-python",
)
PYDANTIC: Final = Generator(
    "gateway-python-pydantic",
    "openapi-generator-cli generate -g python -i {url} -o {output}"
    " --package-name payment_gateway_client --additional-properties packageVersion={version}",
    normal=OPENAPI_GENERATOR,
    warnings={
        "[main] WARN  o.o.codegen.utils.ModelUtils - Failed to get the schema name: null": (
            "The Python generator prints it for every document that has a response with a schema."
        )
    },
)
GO: Final = Generator(
    "gateway-go",
    "openapi-generator-cli generate -g go -i {url} -o {output} --package-name gateway"
    # Without go.mod, and without tests, which import packages from elsewhere, it is a package of the module around it.
    # New fields and new values are no errors. Names of enums' values have a prefix: two enums may have the same value.
    " --global-property apiTests=false --additional-properties withGoMod=false,enumClassPrefix=true,"
    "enumUnknownDefaultCase=true,disallowAdditionalPropertiesIfNotPresent=false",
    normal=OPENAPI_GENERATOR,
    warnings={
        "[main] WARN  o.o.codegen.utils.ModelUtils - Failed to get the schema name: null": (
            "The Go generator prints it for texts by name, as metadata are, which it makes a map of."
        )
    },
)
TYPESCRIPT: Final = Generator(
    "gateway.d.ts",
    "openapi-typescript {url} --output {output}",
    normal=r"✨ openapi-typescript [\d.]+|🚀 .* → gateway\.d\.ts \[[\d.]+m?s\]",
)
HEY_API: Final = Generator(
    "gateway-typescript",
    f"openapi-ts --file {Path(__file__).parent / 'hey-api.config.mjs'} --input {{url}} --no-log-file",
    normal=r"@hey-api/openapi-ts v[\d.]+|\[Job 1\] .*(Generating\.\.\.|\[1\] .*|✓ .*)",
)

GENERATORS: Final = (PYTHON, PYDANTIC, GO, TYPESCRIPT, HEY_API)
