"""What every test may ask for: golden texts, and kernel caches that start empty.

A golden text is an expected output kept as a file under tests/golden and reviewed as code. Run
`pytest --update-golden` to rewrite the files that differ, then read the difference before keeping
it.
"""

import difflib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

GOLDEN = Path(__file__).parent / "golden"

# Two cores may be shared with anything, so time per example says nothing about the code.
settings.register_profile("cnncc", deadline=None, print_blob=True)
settings.load_profile("cnncc")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        default=False,
        help="rewrite the expected texts that differ instead of failing",
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden("lenet/graph.txt", text)`: the text must equal the file tests/golden/lenet/graph.txt.

    With --update-golden the file is written instead. A missing file is a failure, not a pass.
    """
    update = request.config.getoption("--update-golden")

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        if not path.exists():
            pytest.fail(f"{path} does not exist; run pytest --update-golden and review it")
        expected = path.read_text(encoding="utf-8")
        if text != expected:
            difference = difflib.unified_diff(
                expected.splitlines(), text.splitlines(), f"golden/{name}", "now", lineterm=""
            )
            pytest.fail(
                "\n".join(["differs; if intended, run pytest --update-golden", *difference]),
                pytrace=False,
            )

    return check


@pytest.fixture(scope="session", autouse=True)
def as_the_models_choose() -> Iterator[None]:
    """Tests see nothing of what `cnncc tune` has measured for whoever runs them."""
    given = os.environ.get("CNNCC_TUNED")
    os.environ["CNNCC_TUNED"] = "0"
    yield
    if given is None:
        del os.environ["CNNCC_TUNED"]
    else:
        os.environ["CNNCC_TUNED"] = given


@pytest.fixture(scope="session", autouse=True)
def kernel_cache() -> Iterator[Path]:
    """Point CNNCC_CACHE_DIR, unless it is set, to an empty private folder for this test run.

    So a test never passes thanks to a kernel that an older version of the code compiled. The
    variable is inherited by the processes that tests start.
    """
    given = os.environ.get("CNNCC_CACHE_DIR")
    if given is not None:
        yield Path(given)
        return
    with tempfile.TemporaryDirectory(prefix="cnncc-test-cache-", ignore_cleanup_errors=True) as new:
        os.environ["CNNCC_CACHE_DIR"] = new
        yield Path(new)
        del os.environ["CNNCC_CACHE_DIR"]
