"""Every installed cell keeps the contract, in a stack and in a mirror."""

import pytest

from zoo.registry import architectures
from zoo.testing import CellContract


class TestEveryCell(CellContract):
    @pytest.fixture(params=architectures())
    def architecture(self, request):
        return request.param
