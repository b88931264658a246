"""The pytest plugin in suites of others, each a pytest process of its own."""

import textwrap

import pytest

pytest_plugins = ["pytester"]

SUITE = """
    import json
    from urllib.request import Request, urlopen

    CARD = {"number": "4111111111111111", "expiryMonth": "12", "expiryYear": "2099", "cvv": "123"}

    def charge(paydrome, reference="r", **fields):
        body = {"reference": reference, "amount": 1000, "currency": "INR", "merchantID": "m", "orderID": "o", "card": CARD}
        with urlopen(Request(paydrome.url + "/card/charges", json.dumps(body | fields).encode()), timeout=20) as answer:
            return json.load(answer)

"""


@pytest.fixture
def suite(pytester, monkeypatch):
    """`suite(tests, *arguments)` runs them with the plugin, however it is installed here."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(tests, *arguments):
        pytester.makepyfile(test_shop=textwrap.dedent(SUITE) + textwrap.dedent(tests))
        return pytester.runpytest_subprocess("-p", "simulators.pytest_plugin", *arguments)

    return run


def test_each_test_has_a_world_of_its_own_that_can_be_broken_moved_and_verified(suite):
    result = suite("""
        import pytest
        from urllib.error import HTTPError

        def test_a_charge(paydrome):
            assert charge(paydrome)["status"] == "approved"
            paydrome.verify(operation="create", order="o", moved=1000)
            assert [entry["reference"] for entry in paydrome.journal(operation="create")] == ["r"]

        def test_a_fault(paydrome):
            assert paydrome.journal() == []
            with paydrome.fault("card", "unavailable", operation="create"):
                with pytest.raises(HTTPError) as refused:
                    charge(paydrome)
                assert refused.value.code == 503
            assert charge(paydrome)["status"] == "approved"
            paydrome.verify({"operation": "create", "moved": 0}, {"operation": "create", "moved": 1000}, in_order=True)

        def test_time(paydrome):
            charge(paydrome, capture="manual")
            paydrome.advance("8d")
            paydrome.verify(operation="expire", reference="r")

        def test_settings(paydrome):
            paydrome.configure(card={"outcomes": {"00": None, "51": 1}})
            assert charge(paydrome)["responseCode"] == "51"
    """)
    result.assert_outcomes(passed=4)


def test_a_failure_says_what_came_nearest_or_why_it_was_refused_and_how_to_repeat_it(suite):
    result = suite("""
        def test_money(paydrome):
            charge(paydrome)
            paydrome.verify(operation="create", order="o", moved=900)

        def test_wrong(paydrome):
            paydrome.fault("card", "unavailble")
    """)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "E*AssertionError: expected count=1 operation=create order=o moved=900, found 0",
            "E*nearest entries:",
            "E*seq=1 provider=card operation=create reference=r *moved=1000*",
            "*- paydrome -*",
            "seed * (of the test's name: the same in every run)",
            "repeat it with: pytest 'test_shop.py::test_money'",
            "E*AdminError: kind: Invalid enum value 'unavailble'; did you mean 'unavailable'?",
        ]
    )
    assert "def verify" not in result.stdout.str()


def test_a_test_meets_the_same_fate_in_every_run_and_another_test_another(suite):
    tests = """
        def test_one(paydrome):
            print("fate", charge(paydrome)["providerID"])

        def test_two(paydrome):
            print("fate", charge(paydrome)["providerID"])
    """
    fates = []
    for names in (["-p", "xdist", "-n", "2"], ["test_shop.py::test_one"]):
        lines = suite(tests, "-rP", *names).stdout.lines
        fates.append({line for line in lines if line.startswith("fate")})
    assert len(fates[0]) == 2
    assert fates[1] < fates[0]


def test_modules_of_the_suite_do_not_stand_in_for_ours(suite, pytester):
    pytester.makepyfile(structlog="raise RuntimeError('this is not the one')")
    suite("""
        import os

        os.environ["PYTHONPATH"] = os.environ["PYTHONPATH"].partition(os.pathsep)[2]  # pytester puts the directory first

        def test_it(paydrome):
            assert paydrome.journal(order=None) == []
    """).assert_outcomes(passed=1)


def test_ctrl_c_ends_the_suite_and_nothing_else_is_said(suite):
    result = suite("""
        import os
        import signal

        os.setpgrp()  # what a terminal runs in the foreground, this suite and all that it starts, is a group

        def test_it(paydrome):
            os.killpg(0, signal.SIGINT)
            signal.pause()
    """)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.no_fnmatch_line("*AdminError*")
    assert "AdminError" not in result.stderr.str()


def test_a_configuration_can_be_given_and_a_wrong_one_is_told(suite, pytester):
    pytester.makefile(".json", simulators='{"secrets": {}}')
    pytester.makeini("[pytest]\npaydrome_config = simulators.json\n")
    result = suite("""
        def test_it(paydrome):
            pass
    """)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["E*the simulators did not start: simulators: *simulators.json: secrets: *missing required field `upi`*"]
    )
