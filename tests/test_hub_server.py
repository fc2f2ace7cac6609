"""The Hub of the tests, asked by the Hub's own client."""

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy as np
import pytest
from hub_server import HubServer, blob_id
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
    upload_folder,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.numpy import save

REPO = "org/name"
http = httpx2.Client(verify=False)  # no certificates to load
CARD = b"""---
license: apache-2.0
library_name: spatiotemporal-zoo
tags: [video-prediction, mslstm]
datasets: [mnist]
---
# A model, of https://arxiv.org/abs/2304.07724
"""
WEIGHTS = save({"w": np.random.default_rng(0).standard_normal((500, 700))})  # 2.8 MB


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with HubServer() as hub:
        hub.use(monkeypatch, tmp_path / "home")
        yield hub


@pytest.fixture
def stored(hub):
    """The Hub with a model on it."""
    hub.add(REPO, {"README.md": CARD, "config.json": b"{}", "model.safetensors": WEIGHTS})
    return hub


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    (folder / "figures").mkdir(parents=True)
    (folder / "README.md").write_bytes(CARD)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "figures" / "a.txt").write_text("a")
    (folder / "empty").touch()
    return folder


def read(folder):
    paths = [p for p in folder.rglob("*") if p.is_file() and ".cache" not in p.parts]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def pulled(folder, **options):
    return read(type(folder)(snapshot_download(REPO, local_dir=folder, **options)))


# Repositories and users


def test_a_repository_is_made_once(hub):
    assert HfApi().create_repo(REPO).repo_id == REPO
    with pytest.raises(HfHubHTTPError, match="already created") as error:
        HfApi().create_repo(REPO)
    assert error.value.response.status_code == 409
    assert HfApi().create_repo(REPO, exist_ok=True).repo_id == REPO
    assert HfApi().create_repo("mine").repo_id == f"{hub.user}/mine"
    assert HfApi().whoami()["name"] == hub.user


def test_a_repository_is_deleted(stored):
    HfApi().delete_repo(REPO)
    assert not HfApi().repo_exists(REPO)
    with pytest.raises(RepositoryNotFoundError):
        HfApi().delete_repo(REPO)


@pytest.mark.parametrize("token", ["hf_wrong", False])
def test_without_the_token_nothing_is_written(stored, folder, token):
    before = stored.commits(REPO)
    for call in (
        lambda api: api.create_repo("org/other"),
        lambda api: api.delete_repo(REPO),
        lambda api: api.upload_folder(repo_id=REPO, folder_path=folder),
        lambda api: api.delete_file("config.json", REPO),
    ):
        with pytest.raises(HfHubHTTPError) as error:
            call(HfApi(token=token))
        assert error.value.response.status_code == 401
    assert (stored.commits(REPO), list(stored.repos)) == (before, [REPO])


def test_a_private_repository_is_not_there_for_others(hub):
    HfApi().create_repo(REPO, private=True)
    assert HfApi().model_info(REPO).private
    assert [m.id for m in HfApi().list_models()] == [REPO]
    with pytest.raises(RepositoryNotFoundError):
        HfApi(token=False).model_info(REPO)
    assert not list(HfApi(token=False).list_models())


# Writing


def test_what_was_pushed_is_pulled(hub, folder, tmp_path):
    HfApi().create_repo(REPO)
    info = HfApi().upload_folder(repo_id=REPO, folder_path=folder, commit_message="Push it")
    assert hub.files(REPO) == read(folder)
    assert hub.count("PUT") == 1  # the weights alone are LFS
    assert [c.title for c in hub.commits(REPO)] == ["Push it", "initial commit"]
    assert info.oid == hub.commits(REPO)[0].sha
    assert pulled(tmp_path / "back").items() >= read(folder).items()


def test_the_module_level_functions_push_too(hub, folder):
    hub.create(REPO)
    upload_folder(repo_id=REPO, folder_path=folder)
    card = ModelCard(CARD.decode() + "More.")
    card.push_to_hub(REPO)
    assert hub.files(REPO) == read(folder) | {"README.md": str(card).encode()}


def test_what_has_not_changed_is_not_pushed_again(hub, folder):
    hub.create(REPO)
    first = HfApi().upload_folder(repo_id=REPO, folder_path=folder)
    again = HfApi().upload_folder(repo_id=REPO, folder_path=folder)
    assert (again.oid, len(hub.commits(REPO))) == (first.oid, 2)
    assert hub.count("PUT") == 1
    (folder / "config.json").write_text('{"hidden": 2}')
    HfApi().upload_folder(repo_id=REPO, folder_path=folder)
    assert len(hub.commits(REPO)) == 3
    assert hub.count("PUT") == 1
    hub.add("org/there", read(folder))
    HfApi().upload_folder(repo_id="org/there", folder_path=folder)
    assert (len(hub.commits("org/there")), hub.count("PUT")) == (2, 1)


def test_an_empty_commit_is_a_commit(stored):
    HfApi().create_commit(REPO, [CommitOperationDelete("config.json")], commit_message="-")
    body = b'{"key": "header", "value": {"summary": "nothing"}}\n'
    url, headers = f"{stored.url}/api/models/{REPO}/commit/main", auth(stored)
    assert http.post(url, content=body, headers=headers).json()["success"]
    assert stored.commits(REPO)[0].files == stored.commits(REPO)[1].files


def auth(hub):
    return {"Authorization": f"Bearer {hub.token}"}


def test_files_and_folders_are_deleted(hub, folder):
    hub.add(REPO, read(folder))
    changes = [CommitOperationDelete("figures/"), CommitOperationDelete("config.json")]
    HfApi().create_commit(REPO, changes, commit_message="Clear")
    assert set(hub.files(REPO)) == {"README.md", "model.safetensors", "empty"}


def test_a_commit_is_made_whole_or_not_at_all(stored):
    before = stored.commits(REPO)
    changes = [CommitOperationAdd("new", b"new"), CommitOperationDelete("nowhere")]
    with pytest.raises(EntryNotFoundError):
        HfApi().create_commit(REPO, changes, commit_message="half")
    stored.fail_commit = 1
    with pytest.raises(HfHubHTTPError, match="500"):
        HfApi().create_commit(REPO, changes[:1], commit_message="none")
    assert stored.commits(REPO) == before
    HfApi().create_commit(REPO, [CommitOperationAdd("new", b"new")], commit_message="whole")
    assert stored.files(REPO)["new"] == b"new"


def test_a_commit_on_an_old_state_is_refused(stored):
    old = stored.commits(REPO)[0].sha
    stored.add(REPO, {"other": b"1"})
    change = [CommitOperationAdd("new", b"new")]
    with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
        HfApi().create_commit(REPO, change, commit_message="late", parent_commit=old)
    assert "new" not in stored.files(REPO)


def test_a_card_the_hub_refuses_is_not_committed(stored):
    bad = CARD.replace(b"apache-2.0", b"my own")
    with pytest.raises(ValueError, match="license"):
        HfApi().upload_file(path_or_fileobj=bad, path_in_repo="README.md", repo_id=REPO)
    assert stored.files(REPO)["README.md"] == CARD


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"oid": "0" * 64}, 400),  # never uploaded
        ({"path": "../x"}, 400),
        ({}, 200),
    ],
)
def test_a_commit_may_only_point_at_what_was_uploaded(stored, body, status):
    oid = hashlib.sha256(WEIGHTS).hexdigest()
    line = {"key": "lfsFile", "value": {"path": "b.safetensors", "oid": oid} | body}
    content = "\n".join(map(str, [{"key": "header", "value": {"summary": "s"}}, line]))
    url = f"{stored.url}/api/models/{REPO}/commit/main"
    told = http.post(url, content=content.replace("'", '"'), headers=auth(stored))
    assert told.status_code == status, told.text
    assert ("b.safetensors" in stored.files(REPO)) == (status == 200)


def test_what_arrives_broken_is_not_stored(stored):
    oid = hashlib.sha256(b"data").hexdigest()
    url = f"{stored.url}/{REPO}.git/info/lfs/objects/batch"
    asked = {"operation": "upload", "objects": [{"oid": oid, "size": 4}]}
    told = http.post(url, json=asked, headers=auth(stored)).json()
    actions = told["objects"][0]["actions"]
    verify = actions["verify"]["href"]
    for data, status in ((b"dat", 400), (b"dada", 400), (b"data", 200)):
        assert http.put(actions["upload"]["href"], content=data).status_code == status
        told = http.post(verify, json={"oid": oid, "size": 4}, headers=auth(stored))
        assert told.status_code == (200 if status == 200 else 404)
    assert http.put(f"{stored.url}/lfs/guess", content=b"data").status_code == 403
    assert http.put(actions["upload"]["href"], content=iter([b"da", b"ta"])).is_success  # chunked


def test_an_upload_that_fails_leaves_no_commit(hub, folder):
    hub.create(REPO)
    hub.fail_lfs, hub.fail_status = 1, 507
    with pytest.raises(RuntimeError, match="Error while uploading"):
        HfApi().upload_folder(repo_id=REPO, folder_path=folder)
    assert len(hub.commits(REPO)) == 1
    hub.fail_lfs, hub.fail_status = 1, 500  # which the client tries again
    HfApi().upload_folder(repo_id=REPO, folder_path=folder)
    assert hub.files(REPO) == read(folder)
    assert [line.status for line in hub.log if line.method == "PUT"] == [507, 500, 200]


# Reading


def test_what_the_hub_tells_of_a_model(stored):
    info = HfApi().model_info(REPO, files_metadata=True)
    assert (info.id, info.author, info.library_name) == (REPO, "org", "spatiotemporal-zoo")
    told = {"video-prediction", "mslstm", "license:apache-2.0", "dataset:mnist", "safetensors"}
    assert set(info.tags) == told | {"spatiotemporal-zoo", "arxiv:2304.07724"}
    assert info.card_data.license == "apache-2.0"
    files = {file.rfilename: file for file in info.siblings}
    assert set(files) == {*stored.files(REPO), ".gitattributes"}
    assert files["model.safetensors"].lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert files["config.json"].blob_id == blob_id(b"{}")
    assert blob_id(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object


def test_models_are_listed(stored):
    stored.add("org/other", {"README.md": b"---\ntags: [x]\n---\n"})
    stored.add("else/third", {})

    def listed(**asked):
        return [model.id for model in HfApi().list_models(**asked)]

    assert listed() == ["else/third", "org/other", REPO]
    assert listed(author="org") == ["org/other", REPO]
    assert listed(filter="spatiotemporal-zoo") == [REPO]
    assert listed(filter=["mslstm", "x"]) == []
    assert listed(search="OTH") == ["org/other"]
    assert listed(limit=1) == ["else/third"]
    assert next(iter(HfApi().list_models())).siblings is None
    assert next(iter(HfApi().list_models(search="name", full=True))).siblings


def test_the_tree_of_a_repository(hub, folder):
    hub.add(REPO, read(folder))
    entries = {entry.path: entry for entry in HfApi().list_repo_tree(REPO, recursive=True)}
    assert set(entries) == {*read(folder), "figures", ".gitattributes"}
    assert entries["model.safetensors"].lfs.size == len(WEIGHTS)
    assert entries["empty"].lfs is None
    top = {entry.path for entry in HfApi().list_repo_tree(REPO)}
    assert top == {p for p in entries if "/" not in p}
    assert [e.path for e in HfApi().list_repo_tree(REPO, "figures")] == ["figures/a.txt"]
    with pytest.raises(EntryNotFoundError):
        list(HfApi().list_repo_tree(REPO, "nowhere"))
    assert HfApi().file_exists(REPO, "figures/a.txt")


def test_old_revisions_stay(stored, tmp_path):
    old = stored.commits(REPO)[0].sha
    stored.add(REPO, {"config.json": b"[]", "new": b""})
    stored.repos[REPO].tags["v1"] = stored.repos[REPO].at(old)
    for number, revision in enumerate((old, old[:10], "v1")):
        files = pulled(tmp_path / str(number), revision=revision)
        assert files["config.json"] == b"{}"
        assert "new" not in files
    assert pulled(tmp_path / "new")["config.json"] == b"[]"
    commits = HfApi().list_repo_commits(REPO)
    assert [c.commit_id for c in commits] == [c.sha for c in stored.commits(REPO)]
    assert commits[-1].title == "initial commit"


def test_what_is_not_there(stored):
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(REPO, "nothing.json")
    with pytest.raises(RevisionNotFoundError):
        snapshot_download(REPO, revision="v9")
    for api in (HfApi(), HfApi(token=False)):
        with pytest.raises(RepositoryNotFoundError):
            api.model_info("org/nobody")
        with pytest.raises(RepositoryNotFoundError):
            api.list_repo_files("gpt2")


def test_the_headers_of_a_file(stored):
    file = get_hf_file_metadata(hf_hub_url(REPO, "model.safetensors"))
    assert file.etag == hashlib.sha256(WEIGHTS).hexdigest()
    assert (file.size, file.xet_file_data) == (len(WEIGHTS), None)
    assert file.commit_hash == stored.commits(REPO)[0].sha
    assert get_hf_file_metadata(hf_hub_url(REPO, "config.json")).etag == blob_id(b"{}")


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=10-19", 206, slice(10, 20)),
        ("bytes=100-", 206, slice(100, None)),
        ("bytes=-7", 206, slice(-7, None)),
        (f"bytes=5-{10**9}", 206, slice(5, None)),
        (f"bytes={10**9}-", 416, slice(0, 0)),
        ("lines=1-2", 200, slice(None)),
    ],
)
def test_parts_of_a_file(stored, asked, status, part):
    told = http.get(hf_hub_url(REPO, "model.safetensors"), headers={"Range": asked})
    assert (told.status_code, told.content) == (status, WEIGHTS[part])


def test_a_download_that_breaks_is_taken_up_where_it_broke(stored, tmp_path, monkeypatch):
    # Less than a chunk that had come, 10 MiB, the client throws away and begins anew.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    stored.cut_after = 1_000_000
    assert pulled(tmp_path / "back")["model.safetensors"] == WEIGHTS
    assert stored.cut_after is None
    resumed = [line for line in stored.log if line.range and line.method == "GET"]
    assert [(line.status, line.range) for line in resumed] == [(206, "bytes=1000000-")]
    assert stored.sent == sum(map(len, stored.repos[REPO].at("main").files.values()))


def test_a_slow_file_holds_up_nobody(stored, tmp_path):
    stored.slow = 0.02  # × 43 chunks
    with ThreadPoolExecutor() as pool:
        weights = pool.submit(hf_hub_download, REPO, "model.safetensors")
        while not stored.count("GET", "model.safetensors"):
            pass
        HfApi().model_info(REPO)
        assert not weights.done()
    assert stored.count("GET", "/api/models/") == 1


# Cards


@pytest.mark.parametrize(
    ("front", "said"),
    [
        ("license: [", "bad YAML"),
        ("- a list", "mapping"),
        ("license: mine", '"license" must be one of'),
        ("pipeline_tag: [a]", '"pipeline_tag"'),
        ("tags: one", '"tags" must be an array'),
        ("datasets: [1]", '"datasets" must hold strings'),
        ("model-index: {}", '"model-index" must be an array'),
        ("model-index: [{results: []}]", 'index[0].name" is required'),
        ("model-index: [{name: a, results: [{}]}]", 'results[0].task.type" is required'),
    ],
)
def test_a_card_that_is_refused(hub, front, said):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        HfApi()._validate_yaml(f"---\n{front}\n---\ntext")
    assert said in str(error.value)
    url, asked = f"{hub.url}/api/validate-yaml", {"content": f"---\n{front}\n---\n"}
    assert said in http.post(url, json=asked, headers={"Accept": "text/plain"}).text


def test_a_card_that_is_let_through(hub):
    ModelCard(CARD.decode()).validate()
    with pytest.raises(ValueError, match="license"):
        ModelCard("---\nlicense: mine\n---\ntext").validate()
    with pytest.warns(UserWarning, match="empty or missing yaml"):
        HfApi()._validate_yaml("# no front matter")


# Another process


def test_another_process_is_pointed_here(stored, tmp_path):
    code = f"from huggingface_hub import *; print(snapshot_download({REPO!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": ""} | stored.env(tmp_path / "h"),
        capture_output=True,
        text=True,
        check=True,
    )
    path = done.stdout.strip()
    assert path.startswith(str(tmp_path / "h"))
    assert (tmp_path / path / "model.safetensors").read_bytes() == WEIGHTS


def test_a_malformed_request_is_refused(stored):
    told = http.post(f"{stored.url}/api/validate-yaml", content=b"{")
    assert (told.status_code, told.json()["error"][:17]) == (400, "malformed request")
    assert http.get(f"{stored.url}/nothing").status_code == 404
