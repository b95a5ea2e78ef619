# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The Hub of hub_server.py, asked by the real client over real HTTP."""

import json
import math
import socket
import threading
import warnings
from pathlib import Path

import httpx2
import pytest
from hub_server import Hub, Seen
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    constants,
    get_session,
)
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# The client hands files to its HTTP library in a way that this one calls old.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

CARD = b"---\nlicense: mit\nlibrary_name: vit-scratch\ntags:\n- digits\n---\n# Card\n"
WEIGHTS = bytes(range(256)) * 40  # 10,240 bytes
FILES = {
    "README.md": CARD,
    "config.json": b"{}\n",
    "empty.txt": b"",
    "model.safetensors": WEIGHTS,
    "runs/1 a/ä#?.txt": b"odd",
    "runs/figure.dat": b"\0" + WEIGHTS[::-1],
}
LARGE = {"model.safetensors", "runs/figure.dat"}


@pytest.fixture
def hub(open_hub):
    return open_hub(page_size=3, part_size=12_000)


@pytest.fixture
def ada(hub, tmp_path) -> HfApi:
    """The client of a user who may write."""
    return HfApi(endpoint=hub.url, token=hub.token("ada", organizations=["acme"]))


@pytest.fixture
def bob(hub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token("bob"))


@pytest.fixture
def anyone(hub) -> HfApi:
    return HfApi(endpoint=hub.url, token=False)


@pytest.fixture
def folder(tmp_path) -> Path:
    return write(tmp_path / "folder", FILES)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def read(folder: str | Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def without_rules(files: dict[str, bytes]) -> dict[str, bytes]:
    return {path: content for path, content in files.items() if path != ".gitattributes"}


def status(raised: pytest.ExceptionInfo) -> int:
    return raised.value.response.status_code


# --- Round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repo_type", ["model", "dataset", "space"])
def test_what_is_uploaded_is_downloaded_byte_for_byte(repo_type, hub, ada, anyone, folder, tmp_path):
    sdk = {"space_sdk": "static"} if repo_type == "space" else {}
    url = ada.create_repo("ada/it", repo_type=repo_type, **sdk)
    assert (url.repo_id, url.repo_type) == ("ada/it", repo_type)
    made = ada.upload_folder(repo_id="ada/it", repo_type=repo_type, folder_path=folder, commit_message="All of it")
    assert made.oid == ada.repo_info("ada/it", repo_type=repo_type).sha
    there = anyone.snapshot_download("ada/it", repo_type=repo_type, cache_dir=tmp_path / "cache")
    assert read(there) == hub.files("ada/it", repo_type=repo_type)
    assert without_rules(read(there)) == FILES
    assert hub.titles("ada/it", repo_type=repo_type) == ["All of it", "initial commit"]


def test_what_is_uploaded_again_makes_no_commit_and_is_not_sent_again(hub, ada, folder):
    ada.create_repo("ada/it")
    first = ada.upload_folder(repo_id="ada/it", folder_path=folder)
    sent = len(hub.asked("PUT", "/lfs/"))
    second = ada.upload_folder(repo_id="ada/it", folder_path=folder)
    assert second.oid == first.oid
    assert len(hub.asked("POST", "/commit/")) == 1
    assert len(hub.asked("PUT", "/lfs/")) == sent


def test_large_files_go_to_the_storage_whole_or_in_parts_without_the_token(hub, ada):
    ada.create_repo("ada/it")
    parts = WEIGHTS * 3
    ada.create_commit(
        "ada/it",
        [CommitOperationAdd("whole.bin", WEIGHTS), CommitOperationAdd("parts.bin", parts)],
        commit_message="Both",
    )
    assert [seen.with_token for seen in hub.asked("PUT", "/lfs/")] == [False] * 4  # the second in three parts
    assert [seen.with_token for seen in hub.asked("POST", "/verify")] == [True] * 2
    assert hub.files("ada/it")["parts.bin"] == parts
    infos = ada.get_paths_info("ada/it", ["whole.bin", "parts.bin"])
    assert {info.lfs.size for info in infos} == {len(WEIGHTS), len(parts)}


def test_content_that_is_not_what_its_hash_says_is_refused(hub, ada):
    ada.create_repo("ada/it")
    operation = CommitOperationAdd("model.bin", WEIGHTS)
    operation.path_or_fileobj = WEIGHTS[::-1]
    with pytest.raises(RuntimeError, match="Error while uploading") as raised:
        ada.create_commit("ada/it", [operation], commit_message="Spoilt")
    assert raised.value.__cause__.response.status_code == 400
    assert hub.titles("ada/it") == ["initial commit"]


def test_a_commit_adds_copies_and_deletes(hub, ada):
    hub.add("ada/it", {"a": b"1", "b/c": b"2", "b/d": b"3", "w.bin": WEIGHTS})
    operations = [
        CommitOperationDelete("b/"),
        CommitOperationDelete("a"),
        CommitOperationCopy("w.bin", "v.bin"),
        CommitOperationCopy("a", "e"),
    ]
    ada.create_commit("ada/it", operations, commit_message="All")
    assert hub.files("ada/it") == {"w.bin": WEIGHTS, "v.bin": WEIGHTS, "e": b"1"}
    with pytest.raises(EntryNotFoundError, match="A file with this name doesn't exist"):
        ada.delete_file("a", "ada/it")


def test_a_folder_can_be_put_there_by_hand(hub, anyone, folder, tmp_path):
    commit = hub.add("acme/it", folder, repo_type="dataset")
    there = anyone.snapshot_download("acme/it", repo_type="dataset", local_dir=tmp_path / "there")
    assert read(there).items() >= FILES.items()
    assert anyone.dataset_info("acme/it").sha == commit


# --- What a repository tells of itself -------------------------------------------------------------------------------


def test_the_info_holds_what_the_card_says(hub, ada):
    commit = hub.add("acme/it", FILES, private=True)
    info = ada.model_info("acme/it", files_metadata=True)
    assert (info.sha, info.private, info.gated, info.author) == (commit, True, False, "acme")
    assert info.card_data.to_dict() == {"license": "mit", "library_name": "vit-scratch", "tags": ["digits"]}
    assert info.library_name == "vit-scratch"
    assert {"digits", "license:mit", "vit-scratch"} <= set(info.tags)
    assert {sibling.rfilename for sibling in info.siblings} == FILES.keys()
    assert {sibling.rfilename for sibling in info.siblings if sibling.lfs} == LARGE
    assert next(one for one in info.siblings if one.rfilename == "config.json").blob_id == (
        "0967ef424bce6791893e9a57bb952f80fd536e93"  # what git calls {} and a line feed
    )
    assert ada.space_info(hub.add("acme/it", {}, repo_type="space", sdk="static") and "acme/it").sdk == "static"


def test_lists_come_in_pages(hub, anyone):
    hub.add("acme/it", {f"{n}/{n}.txt": b"" for n in range(4)})
    for commit in range(4):
        hub.add("acme/it", {f"{n}/{n}.txt": str(commit).encode() for n in range(4)})
    assert [entry.path for entry in anyone.list_repo_tree("acme/it")] == ["0", "1", "2", "3"]
    assert len(list(anyone.list_repo_tree("acme/it", recursive=True))) == 8
    assert [entry.path for entry in anyone.list_repo_tree("acme/it", "2", recursive=True)] == ["2/2.txt"]
    assert len(anyone.list_repo_commits("acme/it")) == 5
    assert len(hub.asked("GET", "/commits/")) == 2
    with pytest.raises(EntryNotFoundError):
        list(anyone.list_repo_tree("acme/it", "5"))


def test_the_history_is_told(hub, ada):
    hub.add("ada/it", {"old": b"1"})
    ada.upload_file(path_or_fileobj=b"2", path_in_repo="new", repo_id="ada/it", commit_message="A new one")
    history = ada.list_repo_commits("ada/it")
    assert [(commit.title, commit.authors) for commit in history] == [("A new one", ["ada"]), ("Add main", ["hub"])]


def test_branches_tags_and_commits_are_revisions(hub, ada, tmp_path):
    first = hub.add("ada/it", {"a": b"1"})
    ada.create_branch("ada/it", branch="next/one")
    ada.create_tag("ada/it", tag="v1", tag_message="The first")
    second = ada.upload_file(path_or_fileobj=b"2", path_in_repo="a", repo_id="ada/it", revision="next/one").oid
    contents = {
        revision: Path(ada.hf_hub_download("ada/it", "a", revision=revision, cache_dir=tmp_path)).read_bytes()
        for revision in ("main", "v1", first, first[:7], "next/one", second)
    }
    assert list(contents.values()) == [b"1"] * 4 + [b"2"] * 2
    refs = ada.list_repo_refs("ada/it")
    assert {branch.ref: branch.target_commit for branch in refs.branches} == {
        "refs/heads/main": first,
        "refs/heads/next/one": second,
    }
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("v1", first)]
    with pytest.raises(HfHubHTTPError) as raised:
        ada.create_branch("ada/it", branch="next/one")
    assert status(raised) == 409
    ada.create_branch("ada/it", branch="next/one", exist_ok=True)
    ada.create_tag("ada/it", tag="v1", exist_ok=True)
    ada.delete_branch("ada/it", branch="next/one")
    ada.delete_tag("ada/it", tag="v1")
    assert len(ada.list_repo_refs("ada/it").branches) == 1
    with pytest.raises(HfHubHTTPError, match="main branch cannot be deleted"):
        ada.delete_branch("ada/it", branch="main")
    with pytest.raises(RevisionNotFoundError):
        ada.delete_tag("ada/it", tag="v1")
    with pytest.raises(BadRequestError):
        ada.create_branch("ada/it", branch="refs/pr/5")


def test_a_pull_request_leaves_the_branch_alone_and_is_open_to_others(hub, bob):
    hub.add("acme/it", {"a": b"1"})
    made = bob.create_commit(
        "acme/it",
        [CommitOperationAdd("a", b"2"), CommitOperationAdd("w.bin", WEIGHTS)],
        commit_message="Better",
        create_pr=True,
    )
    assert (made.pr_num, made.pr_revision) == (1, "refs/pr/1")
    assert hub.files("acme/it") == {"a": b"1"}
    assert hub.files("acme/it", "refs/pr/1")["w.bin"] == WEIGHTS
    pulls = bob.list_repo_refs("acme/it", include_pull_requests=True).pull_requests
    assert [pull.target_commit for pull in pulls] == [made.oid]


def test_the_file_system_of_the_client_lists_and_reads(hub):
    hub.add("acme/it", FILES)
    files = HfFileSystem(endpoint=hub.url, token=False, skip_instance_cache=True)
    assert {path.removeprefix("acme/it/") for path in files.find("acme/it")} == FILES.keys()
    assert {entry["type"] for entry in files.ls("acme/it/runs")} == {"directory", "file"}
    for path in ("config.json", "model.safetensors"):
        assert files.read_bytes(f"acme/it/{path}") == FILES[path]
    assert files.cat_file("acme/it/model.safetensors", start=100, end=300) == WEIGHTS[100:300]


# --- Downloads -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
def test_what_is_in_the_cache_costs_one_request_without_content(path, hub, anyone, tmp_path):
    hub.add("acme/it", FILES)
    first = anyone.hf_hub_download("acme/it", path, cache_dir=tmp_path)
    assert Path(first).read_bytes() == FILES[path]
    before = len(hub.requests)
    assert anyone.hf_hub_download("acme/it", path, cache_dir=tmp_path) == first
    expected = 302 if path in LARGE else 200
    assert hub.requests[before:] == [Seen("HEAD", f"/acme/it/resolve/main/{path}", expected, False)]
    hub.add("acme/it", FILES | {path: b"changed"})
    assert Path(anyone.hf_hub_download("acme/it", path, cache_dir=tmp_path)).read_bytes() == b"changed"


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
def test_a_download_that_breaks_off_goes_on_where_it_was(path, hub, anyone, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1)
    hub.add("acme/it", FILES)
    where = "/lfs/" if path in LARGE else "/resolve/"
    hub.fail("GET", where, lost="body", after=2)
    assert Path(anyone.hf_hub_download("acme/it", path, cache_dir=tmp_path)).read_bytes() == FILES[path]
    assert [seen.status for seen in hub.asked("GET", where)] == [200, 206]


def test_ranges_are_those_of_http(hub):
    hub.add("acme/it", {"a.txt": b"0123456789"})

    def asked(wanted: str) -> tuple[int, bytes, str | None]:
        answer = get_session().get(f"{hub.url}/acme/it/resolve/main/a.txt", headers={"Range": wanted})
        return answer.status_code, answer.content, answer.headers.get("Content-Range")

    assert asked("bytes=2-4") == (206, b"234", "bytes 2-4/10")
    assert asked("bytes=8-99") == (206, b"89", "bytes 8-9/10")
    assert asked("bytes=7-") == (206, b"789", "bytes 7-9/10")
    assert asked("bytes=-3") == (206, b"789", "bytes 7-9/10")
    status, _, content_range = asked("bytes=10-")
    assert (status, content_range) == (416, "bytes */10")


def test_an_address_of_the_storage_cannot_be_guessed(hub):
    hub.add("acme/it", FILES, private=True)
    repository = hub.repositories["model", "acme/it"]
    (oid, *_) = repository.objects
    assert get_session().get(f"{hub.storage_url}/lfs/models/acme/it/{oid}").status_code == 403
    assert get_session().get(f"{hub.storage_url}/lfs/models/acme/it/{oid}?signature=0").status_code == 403


def test_what_is_not_there_is_said_with_its_kind(hub, anyone, tmp_path):
    hub.add("acme/it", {"a": b"1"})
    with pytest.raises(EntryNotFoundError):
        anyone.hf_hub_download("acme/it", "b", cache_dir=tmp_path)
    with pytest.raises(RevisionNotFoundError):
        anyone.hf_hub_download("acme/it", "a", revision="v7", cache_dir=tmp_path)
    with pytest.raises(RepositoryNotFoundError) as raised:
        anyone.hf_hub_download("acme/none", "a", cache_dir=tmp_path)
    assert status(raised) == 401
    assert anyone.file_exists("acme/it", "a")
    assert not anyone.file_exists("acme/it", "b")
    assert not anyone.revision_exists("acme/it", "v7")
    assert not anyone.repo_exists("acme/none")


# --- Who may do what -------------------------------------------------------------------------------------------------


def test_a_token_has_a_user(ada, anyone, hub):
    who = ada.whoami()
    assert (who["name"], who["orgs"][0]["name"], who["auth"]["accessToken"]["role"]) == ("ada", "acme", "write")
    with pytest.raises(HfHubHTTPError, match="Invalid user token") as raised:
        HfApi(endpoint=hub.url, token="hf_none").whoami()
    assert status(raised) == 401


def test_a_private_repository_exists_only_for_its_members(hub, ada, bob, anyone):
    ada.create_repo("acme/secret", private=True)
    assert ada.repo_info("acme/secret").private
    for stranger, expected in ((bob, 404), (anyone, 401)):
        with pytest.raises(RepositoryNotFoundError) as raised:
            stranger.repo_info("acme/secret")
        assert status(raised) == expected
        assert not stranger.repo_exists("acme/secret")


def test_a_gated_repository_shows_its_list_and_no_file(hub, ada, bob, anyone, tmp_path):
    hub.add("acme/gated", FILES, gated="manual")
    for stranger, expected in ((bob, 403), (anyone, 401)):
        assert stranger.repo_info("acme/gated").gated == "manual"
        with pytest.raises(GatedRepoError) as raised:
            stranger.hf_hub_download("acme/gated", "config.json", cache_dir=tmp_path)
        assert status(raised) == expected
    assert read(ada.snapshot_download("acme/gated", cache_dir=tmp_path)) == FILES


@pytest.mark.parametrize("who", ["anyone", "invalid", "reader", "stranger"])
def test_those_who_may_not_write_are_refused(who, hub, folder):
    token = {"anyone": False, "invalid": "hf_none"}.get(who)
    if token is None:
        token = hub.token("ada", role="read") if who == "reader" else hub.token("bob")
    hub.add("ada/it", {})
    api = HfApi(endpoint=hub.url, token=token)
    expected = 401 if who in ("anyone", "invalid") else 403
    for call in (
        lambda: api.create_repo("ada/new"),
        lambda: api.upload_folder(repo_id="ada/it", folder_path=folder),
        lambda: api.create_branch("ada/it", branch="next"),
        lambda: api.delete_repo("ada/it"),
    ):
        with pytest.raises(HfHubHTTPError) as raised:
            call()
        assert status(raised) == expected, raised.value
    assert [*hub.repositories] == [("model", "ada/it")]
    assert len(hub.titles("ada/it")) == 1


def test_what_asks_for_a_token_is_to_the_client_not_there(hub, anyone):
    hub.add("ada/it", {})
    with pytest.raises(RepositoryNotFoundError) as raised:
        anyone.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id="ada/it")
    assert status(raised) == 401


def test_a_repository_is_made_once_and_deleted_once(hub, ada, bob):
    url = ada.create_repo("it")
    assert url == f"{hub.url}/ada/it"
    with pytest.raises(HfHubHTTPError) as raised:
        ada.create_repo("ada/it")
    assert status(raised) == 409
    assert ada.create_repo("ada/it", exist_ok=True) == url
    assert bob.create_repo("ada/it", exist_ok=True) == url
    assert ada.create_repo("ada/it", repo_type="dataset") == f"{hub.url}/datasets/ada/it"
    ada.delete_repo("ada/it")
    with pytest.raises(RepositoryNotFoundError):
        ada.delete_repo("ada/it")
    ada.delete_repo("ada/it", missing_ok=True)
    assert [*hub.repositories] == [("dataset", "ada/it")]


# --- Commits that cannot be ------------------------------------------------------------------------------------------


def test_a_revision_that_is_not_there_takes_no_commit(hub, ada, folder):
    hub.add("ada/it", {})
    for upload in (
        lambda: ada.upload_folder(repo_id="ada/it", folder_path=folder, revision="next"),
        lambda: ada.create_commit("ada/it", [CommitOperationDelete("a")], commit_message="No", revision="next"),
    ):
        with pytest.raises(RevisionNotFoundError) as raised:
            upload()
        assert status(raised) == 404


def test_a_tag_takes_no_commit(hub, ada):
    hub.add("ada/it", {})
    ada.create_tag("ada/it", tag="v1")
    with pytest.raises(BadRequestError, match="v1 is no branch"):
        ada.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id="ada/it", revision="v1")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([("lfsFile", {"path": "a.bin", "oid": "0" * 64})], 400),  # never uploaded
        ([("renamedFile", {"path": "a"})], 400),
        ([("file", {"path": "b"})], 500),
    ],
)
def test_a_commit_that_no_client_sends_changes_nothing(lines, expected, hub, ada):
    hub.add("ada/it", {"a": b"1"})
    lines = [("header", {"summary": "Odd"}), *lines]
    body = "\n".join(json.dumps({"key": key, "value": value}) for key, value in lines)
    headers = {"Authorization": f"Bearer {ada.token}"}
    answer = get_session().post(f"{hub.url}/api/models/ada/it/commit/main", content=body, headers=headers)
    assert answer.status_code == expected
    verify = f"{hub.url}/lfs/models/ada/it/{'0' * 64}/verify"
    assert get_session().post(verify, json={"size": 1}, headers=headers).status_code == 404
    assert hub.titles("ada/it") == ["Add main"]


def test_of_two_who_commit_to_the_same_parent_one_is_told(hub, ada):
    parent = hub.add("ada/it", {})
    together = threading.Barrier(2)
    outcomes = []

    def upload(name: str) -> None:
        together.wait()
        try:
            added = [CommitOperationAdd(name, name.encode())]
            outcomes.append(ada.create_commit("ada/it", added, commit_message=name, parent_commit=parent).oid)
        except HfHubHTTPError as error:
            outcomes.append(error.response.status_code)

    threads = [threading.Thread(target=upload, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 412 in outcomes
    assert len(hub.files("ada/it")) == 1
    assert len(hub.titles("ada/it")) == 2
    assert ada.repo_info("ada/it").sha in outcomes


def test_many_at_once_lose_nothing(hub, ada):
    hub.add("ada/it", {})

    def upload(name: str) -> None:
        ada.upload_file(path_or_fileobj=WEIGHTS + name.encode(), path_in_repo=f"{name}.bin", repo_id="ada/it")

    threads = [threading.Thread(target=upload, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hub.files("ada/it") == {f"{number}.bin": WEIGHTS + str(number).encode() for number in range(8)}
    assert len(hub.titles("ada/it")) == 9


# --- The card --------------------------------------------------------------------------------------------------------


RESULT = "{task: {type: t}, dataset: {name: d, type: d}, metrics: [{type: accuracy, value: 0.5}]}"


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("license: [mit", "while parsing a flow sequence"),
        ("- a\n- b", '"metadata" must be of type object'),
        ("license: 3", '"license" must be a string'),
        ("tags: digits", '"tags" must be an array'),
        ("tags: [1]", '"tags[0]" must be a string'),
        ("datasets: [null]", '"datasets[0]" must be a string'),
        ("model-index: vit", '"model-index" must be an array'),
        ("model-index: [{name: vit}]", '"model-index[0].results" is required'),
        (
            "model-index: [{name: vit, results: [" + RESULT.replace("name: d, ", "") + "]}]",
            '"model-index[0].results[0].dataset.name" is required',
        ),
        (
            "model-index: [{name: vit, results: [" + RESULT.replace(", value: 0.5", "") + "]}]",
            '"model-index[0].results[0].metrics[0].value" is required',
        ),
    ],
)
def test_a_card_that_the_hub_would_not_take_is_refused(metadata, said, hub, ada):
    hub.add("ada/it", {})
    card = f"---\n{metadata}\n---\n# Card\n".encode()
    with pytest.raises(ValueError, match="Invalid metadata") as raised:
        ada.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="ada/it")
    assert said in str(raised.value)
    assert hub.files("ada/it") == {}


@pytest.mark.parametrize(
    "metadata",
    ["license: mit", "license: [mit, x]\nlanguage: en", f"model-index: [{{name: vit, results: [{RESULT}]}}]"],
)
def test_a_card_that_the_hub_takes_is_taken(metadata, hub, ada):
    hub.add("ada/it", {})
    card = f"---\n{metadata}\n---\n# Card\n".encode()
    with warnings.catch_warnings(action="error", category=UserWarning):
        ada.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="ada/it")
    assert hub.files("ada/it") == {"README.md": card}


def test_a_card_without_metadata_is_taken_with_a_warning(hub, ada):
    hub.add("ada/it", {})
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        ada.upload_file(path_or_fileobj=b"# Card\n", path_in_repo="README.md", repo_id="ada/it")
    assert hub.files("ada/it") == {"README.md": b"# Card\n"}


# --- Faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "what",
    [{"status": 500}, {"status": 503}, {"lost": "request"}, {"lost": "request", "after": 100}, {"lost": "answer"}],
)
@pytest.mark.parametrize(("method", "path"), [("PUT", "/lfs/"), ("POST", "/objects/batch"), ("POST", "/verify")])
def test_the_client_tries_again_what_goes_wrong_with_large_files(method, path, what, hub, ada, folder, naps):
    ada.create_repo("ada/it")
    fault = hub.fail(method, path, times=2, **what)
    ada.upload_folder(repo_id="ada/it", folder_path=folder)
    assert without_rules(hub.files("ada/it")) == FILES
    assert fault.times == 0
    assert naps
    assert [seen.status for seen in hub.asked(method, path)].count(what.get("status")) == 2


def test_the_client_waits_as_long_as_it_is_told(hub, ada, folder, naps):
    ada.create_repo("ada/it")
    hub.fail("POST", "/preupload/", status=429, retry_after=7)
    ada.upload_folder(repo_id="ada/it", folder_path=folder)
    assert naps == [8.0]  # and a second more


def test_a_fault_can_be_for_ever(hub, ada, folder):
    ada.create_repo("ada/it")
    hub.fail("PUT", "/lfs/", status=503, times=math.inf)
    with pytest.raises(RuntimeError, match="Error while uploading") as raised:
        ada.upload_folder(repo_id="ada/it", folder_path=folder)
    assert raised.value.__cause__.response.status_code == 503
    assert len(hub.asked("PUT", "/lfs/")) == 12  # two files, each six times
    assert hub.titles("ada/it") == ["initial commit"]


def test_an_upload_that_failed_at_its_commit_sends_large_files_no_more(hub, ada, folder):
    ada.create_repo("ada/it")
    hub.fail("POST", "/commit/", status=503)
    with pytest.raises(HfHubHTTPError) as raised:
        ada.upload_folder(repo_id="ada/it", folder_path=folder)
    assert status(raised) == 503
    sent = len(hub.asked("PUT", "/lfs/"))
    ada.upload_folder(repo_id="ada/it", folder_path=folder)
    assert len(hub.asked("PUT", "/lfs/")) == sent == 2
    assert without_rules(hub.files("ada/it")) == FILES


def test_a_commit_whose_answer_was_lost_has_happened(hub, ada, folder):
    ada.create_repo("ada/it")
    hub.fail("POST", "/commit/", lost="answer")
    with pytest.raises(httpx2.RemoteProtocolError):
        ada.upload_folder(repo_id="ada/it", folder_path=folder, commit_message="All of it")
    assert hub.titles("ada/it") == ["All of it", "initial commit"]
    assert ada.upload_folder(repo_id="ada/it", folder_path=folder).oid == ada.repo_info("ada/it").sha
    assert hub.titles("ada/it") == ["All of it", "initial commit"]


def test_a_commit_that_did_not_arrive_whole_has_not_happened(hub, ada, folder):
    ada.create_repo("ada/it")
    hub.fail("POST", "/commit/", lost="request", after=200)
    with pytest.raises(httpx2.TransportError):
        ada.upload_folder(repo_id="ada/it", folder_path=folder)
    assert hub.titles("ada/it") == ["initial commit"]
    with socket.create_connection(("127.0.0.1", hub.servers[0].server_port)) as client:
        head = f"POST /api/models/ada/it/commit/main HTTP/1.1\r\nAuthorization: Bearer {ada.token}\r\n"
        client.sendall(
            f'{head}Content-Length: 999\r\n\r\n{{"key": "header", "value": {{"summary": "half"}}}}\n'.encode()
        )
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""
    assert hub.titles("ada/it") == ["initial commit"]


def test_nothing_is_left_of_a_hub_and_nothing_answers_any_more(tmp_path):
    before = threading.active_count()
    with Hub() as hub, httpx2.Client(trust_env=False) as client:
        hub.add("acme/it", {"a": b"1"})
        assert client.get(f"{hub.url}/acme/it/resolve/main/a").content == b"1"
        with socket.create_connection(("127.0.0.1", hub.servers[1].server_port)):  # says nothing
            pass
    assert threading.active_count() == before
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(hub.url, trust_env=False)


def test_a_cache_bridges_a_hub_that_is_down(hub, anyone, tmp_path):
    hub.add("acme/it", FILES)
    there = anyone.snapshot_download("acme/it", cache_dir=tmp_path)
    hub.fail("GET", "", status=503, times=math.inf)
    hub.fail("HEAD", "", status=503, times=math.inf)
    assert anyone.snapshot_download("acme/it", cache_dir=tmp_path) == there
    assert Path(anyone.hf_hub_download("acme/it", "config.json", cache_dir=tmp_path)).read_bytes() == b"{}\n"
    with pytest.raises(LocalEntryNotFoundError):
        anyone.hf_hub_download("acme/other", "config.json", cache_dir=tmp_path)
