import pytest
from .test_csv_records import test_rows_are_those_of_the_grammar as T

@pytest.mark.parametrize("body", [b",\r\r", b",\r", b"a,b\r\r\n", b"\r\r", b"a\r", b",\r\r\n,\r", b",\r\r\na,b\n"])
def test_case(body, tmp_path_factory):
    for width in (1, 2, 3):
        for chunk in (1, 2, 60):
            T.hypothesis.inner_test(body=body, width=width, chunk=chunk, tmp_path_factory=tmp_path_factory)
