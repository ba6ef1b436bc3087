"""The Hub of the tests, held against the clients that people use: what they do with the real one works here too."""

from __future__ import annotations

import hub_server
import pytest
import torch
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, snapshot_download
from huggingface_hub.errors import BadRequestError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError


@pytest.fixture
def api(hub) -> HfApi:
    return HfApi(endpoint=hub.address, token=hub_server.TOKEN)


def add(path: str, content: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path, content)


def test_a_commit_holds_files_of_git_and_of_lfs_and_comes_back_by_its_tag(hub, api, tmp_path):
    api.create_repo("jane/x", private=True)
    first = api.create_commit("jane/x", [add("a.txt", b"one"), add("w.safetensors", b"\0" * 999)], commit_message="m")
    api.create_tag("jane/x", tag="v1")
    api.create_commit("jane/x", [add("a.txt", b"two"), CommitOperationDelete("w.safetensors")], commit_message="m")

    folder = snapshot_download("jane/x", revision="v1", local_dir=tmp_path / "v1")

    assert (tmp_path / "v1/a.txt").read_bytes() == b"one"
    assert (tmp_path / "v1/w.safetensors").read_bytes() == b"\0" * 999
    assert folder == str(tmp_path / "v1")
    assert api.list_repo_refs("jane/x").tags[0].target_commit == first.oid
    assert api.list_repo_files("jane/x") == [".gitattributes", "a.txt"]
    assert ("PUT", 200) in {(method, status) for method, path, status in hub.requests if path.startswith("/lfs/")}


def test_the_same_files_again_make_no_second_commit(api):
    api.create_repo("jane/x")
    files = [("a.txt", b"one"), ("w.safetensors", b"\0" * 999)]

    first = api.create_commit("jane/x", [add(*each) for each in files], commit_message="m")
    again = api.create_commit("jane/x", [add(*each) for each in files], commit_message="m")

    assert first.oid == again.oid


def test_a_commit_on_a_parent_that_is_no_longer_the_head_is_refused(api):
    api.create_repo("jane/x")
    head = api.repo_info("jane/x").sha
    api.create_commit("jane/x", [add("a.txt", b"one")], commit_message="m")

    with pytest.raises(HfHubHTTPError) as error:
        api.create_commit("jane/x", [add("a.txt", b"two")], commit_message="m", parent_commit=head)

    assert error.value.response.status_code == 412


def test_what_is_private_is_not_there_for_others(hub, api):
    api.create_repo("jane/x", private=True)

    for token in ("hf_readsonly", False):
        with pytest.raises(RepositoryNotFoundError):
            api.repo_info("jane/x", token=token)
    hub.gated.add("jane/x")
    with pytest.raises(GatedRepoError):
        api.repo_info("jane/x")


def test_a_token_that_may_read_creates_and_writes_nothing(api):
    api.create_repo("jane/x")

    for action in (
        lambda: api.create_repo("rita/y", token="hf_readsonly"),
        lambda: api.create_commit("jane/x", [add("a", b"a")], commit_message="m", token="hf_readsonly"),
        lambda: api.auth_check("jane/x", write=True, token="hf_readsonly"),
    ):
        with pytest.raises(HfHubHTTPError) as error:
            action()
        assert error.value.response.status_code == 403
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        api.whoami(token="hf_nobody")


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("base_model: /data/bert", "base_model"),
        ("license: mine", "license"),
        ("language: English", "language"),
        ("tags: [1]", "tags"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_a_card_that_the_hub_would_refuse_is_refused(metadata: str, said: str):
    with pytest.raises(ValueError, match=said):
        ModelCard(f"---\n{metadata}\n---\n# x\n", ignore_metadata_errors=True).validate()


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT's
def test_models_adapters_and_tokenizers_go_up_and_come_down_as_they_were(home, hub, api):
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(home / "bert"), AutoTokenizer.from_pretrained(home / "bert")
    model.push_to_hub("jane/bert")
    tokenizer.push_to_hub("jane/bert")
    attached = get_peft_model(model, LoraConfig(target_modules=["query"], init_lora_weights=False))
    attached.push_to_hub("acme/adapter")
    inputs = AutoTokenizer.from_pretrained("jane/bert")("a good film", return_tensors="pt")

    there = PeftModel.from_pretrained(AutoModel.from_pretrained("jane/bert"), "acme/adapter").eval()

    with torch.no_grad():
        expected, found = (each(**inputs).last_hidden_state for each in (attached.eval(), there))
    assert torch.equal(expected, found)


def test_data_sets_go_up_come_down_and_stream(hub):
    from datasets import Dataset, load_dataset

    Dataset.from_dict({"a": [1, 2, 3]}).push_to_hub("jane/rows")

    assert load_dataset("jane/rows", split="train")["a"][:] == [1, 2, 3]
    assert [row["a"] for row in load_dataset("jane/rows", split="train", streaming=True)] == [1, 2, 3]


def test_a_bad_request_makes_no_commit(hub, api):
    api.create_repo("jane/x")
    head = api.repo_info("jane/x").sha
    hub.objects.clear()
    hub.fail("status", path="/commit/", status=400)

    with pytest.raises(BadRequestError):
        api.create_commit("jane/x", [add("a.txt", b"one")], commit_message="m")

    assert api.repo_info("jane/x").sha == head
