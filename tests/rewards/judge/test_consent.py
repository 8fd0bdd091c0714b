"""Who may be asked: what is on this machine, what is not, and what needs the user's word."""

import pytest

from r1recipes.errors import RecipeError
from r1recipes.rewards.judge import consent
from r1recipes.rewards.judge.section import Judge
from tests.helpers import hint


def judge(url: str | None = "http://127.0.0.1:8080/v1", **keys) -> Judge:
    return Judge.model_validate({"url": url, "model": "m", "rubric": "Right?"} | keys)


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("127.0.0.1:8080", "this machine"),
        ("127.9.9.9", "this machine"),
        ("localhost", "this machine"),
        ("LOCALHOST.", "this machine"),
        ("judge.localhost", "this machine"),
        ("[::1]:80", "this machine"),
        ("[::ffff:127.0.0.1]", "this machine"),
        ("0.0.0.0", "private"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("192.168.1.5:1234", "private"),
        ("169.254.169.254", "private"),
        ("100.64.0.1", "private"),
        ("[fe80::1%25eth0]", "private"),
        ("[fd00::1]", "private"),
        ("[::ffff:10.0.0.1]", "private"),
        ("gpu-box", "private"),
        ("2130706433", "private"),
        ("gpu.local", "private"),
        ("gpu.internal", "private"),
        ("8.8.8.8", "public"),
        ("172.32.0.1", "public"),
        ("[2606:4700::1]", "public"),
        ("api.example.com", "public"),
        ("127.0.0.1.example.com", "public"),
        ("localhost.example.com", "public"),
        ("notlocalhost", "private"),
    ],
)
def test_an_address_is_on_this_machine_private_or_public(host, place):
    assert consent.place_of(f"http://{host}/v1") == place


@pytest.mark.parametrize(
    "url", ["http://10.0.0.5/v1", "https://api.example.com/v1", "http://gpu/v1"]
)
def test_what_leaves_this_machine_needs_the_users_word(url):
    with pytest.raises(RecipeError, match=f"at {url}: that needs --allow-judge"):
        consent.refuse_unallowed(judge(url), allowed=False)
    consent.refuse_unallowed(judge(url), allowed=True)
    with pytest.raises(RecipeError, match="cannot be asked in a run that is offline"):
        consent.refuse_unallowed(judge(url), allowed=True, offline=True)


def test_what_stays_needs_it_only_for_a_recipe_from_elsewhere():
    consent.refuse_unallowed(judge(), allowed=False, offline=True)
    consent.refuse_unallowed(None, allowed=False, is_foreign=True)
    consent.refuse_unallowed(judge(None, model="folder"), allowed=False)
    with pytest.raises(RecipeError, match="needs --allow-judge"):
        consent.refuse_unallowed(judge(), allowed=False, is_foreign=True)
    consent.refuse_unallowed(judge(), allowed=True, is_foreign=True)


@pytest.mark.parametrize("value", [None, "", "  ", "two\nlines", "schl\u00fcssel"])
def test_a_key_that_cannot_be_one_is_refused_by_its_name(monkeypatch, value):
    monkeypatch.delenv("MY_JUDGE", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_JUDGE", value)
    with pytest.raises(RecipeError, match="`judge.api_key_env` names MY_JUDGE, which") as caught:
        consent.refuse_unallowed(judge(api_key_env="MY_JUDGE"), allowed=True)
    assert "export MY_JUDGE=" in hint(caught) and "schl" not in str(caught.value)


def test_the_user_reads_which_key_is_sent_where():
    sentence = consent.sentence(judge("https://evil.example/v1", api_key_env="AWS_SECRET"))
    assert "https://evil.example/v1" in sentence and "$AWS_SECRET" in sentence
    with pytest.raises(RecipeError) as caught:
        consent.refuse_unallowed(
            judge("https://evil.example/v1", api_key_env="AWS_SECRET"), allowed=False
        )
    assert "$AWS_SECRET" in hint(caught)


def test_a_private_address_is_not_shared():
    shared = consent.without_private(judge("http://10.0.0.5:8000/v1"))
    assert shared.url == "http://127.0.0.1:8000/v1" and shared.model == "m"
    for url in ("https://api.example.com/v1", "http://127.0.0.1:8080/v1"):
        assert consent.without_private(judge(url)).url == url
