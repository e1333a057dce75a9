"""Fixtures of the chart's tests: each real helm binary, and what it renders."""
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import helm_binary  # noqa: E402
from chart import VALUES, documents_of, template  # noqa: E402


@pytest.fixture(scope="session", params=sorted(helm_binary.PACKAGES))
def helm(request):
    try:
        return helm_binary.get_helm(request.param)
    except helm_binary.Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def rendered(helm):
    """rendered(name of VALUES) -> the documents."""
    cache = {}

    def render(name):
        if name not in cache:
            cache[name] = documents_of(template(helm, VALUES[name]))
        return cache[name]

    return render
