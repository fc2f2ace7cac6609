"""Hubs: the places that hold models by name, a folder of them or an account on the Hub."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from zoo.atomic import atomic_folder, make_folder
from zoo.config import read_config
from zoo.errors import ZooError
from zoo.parts import PARTS, WEIGHTS, check_parts, lacking, parts_of
from zoo.plugins import find, names

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

__all__ = [
    "LIBRARY",
    "NAME",
    "Folder",
    "Hub",
    "HuggingFace",
    "Listed",
    "Plugins",
    "UnreachableError",
    "bring",
    "check_name",
    "check_weights",
    "open_hub",
    "search",
]

#: By this tag the models of the zoo are found on the Hub.
LIBRARY = "spatiotemporal-zoo"

#: A name of a model: it can be part of a path or an address, and lead nowhere else.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


class UnreachableError(ZooError):
    """A hub cannot be asked, or does not give what it has; another may."""


class Listed(NamedTuple):
    """A model at a hub: its name, architecture and data set, and the hub ("" if unknown)."""

    name: str
    architecture: str
    data: str
    hub: str


class Hub(Protocol):
    """A place that holds models by name."""

    def models(self) -> list[Listed]:
        """The models that are there, by name."""

    def pull(self, name: str) -> Path | None:
        """Bring a model here and return its folder, or None where it is not there."""

    def publish(self, folder: Path, name: str, files: list[Path]) -> str:
        """Put files of a model's folder there, all or none, and return the address."""
        raise ZooError("nothing can be published in this hub; name a folder, or hf://org")


def open_hub(place: str) -> Hub:
    """The hub that is written ``hf://org``, or as the path of a folder of models."""
    organisation = place.removeprefix("hf://").rstrip("/")
    if not place.startswith("hf://"):
        return Folder(Path(os.path.expanduser(place)))
    if not NAME.fullmatch(organisation):
        raise ZooError(f"the hub {place!r} is no account on the Hugging Face Hub: hf://org")
    return HuggingFace(organisation)


class Folder(Hub):
    """A hub that is a folder with a folder for each model; nothing in it is copied."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def models(self) -> list[Listed]:
        """The folders that hold a config and weights; one with a bad config is warned of."""
        if not os.path.isdir(self.path):
            raise UnreachableError(f"the hub {self.path} is no folder")
        folders = sorted(weights.parent for weights in self.path.glob(f"*/{WEIGHTS}"))
        return [model for f in folders for model in _listing(f, f.name, str(self.path))]

    def pull(self, name: str) -> Path | None:
        """The model's folder, where it is."""
        folder = self.path / name
        return folder if NAME.fullmatch(name) and not lacking(folder) else None

    def publish(self, folder: Path, name: str, files: list[Path]) -> str:
        """Copy the files; a model of that name is replaced at once, or stays as it is.

        Raises ZooError where anything else stands there than a model that was published.
        """
        check_name(name)
        target = make_folder(self.path) / name
        there, source = target.resolve(), folder.resolve()
        if there == source:
            raise ZooError(f"{folder} is the place itself; it is published already")
        if there in source.parents or source in there.parents:
            raise ZooError(f"{target} and {folder} lie in one another; choose another hub or name")
        if target.is_dir() and {*target.iterdir()} - {*parts_of(target)}:
            raise ZooError(
                f"{target} is there and holds more than a model; choose another name, or take it "
                "away"
            )
        with atomic_folder(target) as temporary:
            for file in files:
                shutil.copyfile(file, temporary / file.name)
        return str(target)


class HuggingFace(Hub):
    """A hub that is an account on the Hugging Face Hub, or on the server of ``HF_ENDPOINT``."""

    def __init__(self, organisation: str) -> None:
        self.organisation = organisation

    def models(self) -> list[Listed]:
        """The account's repositories that bear the zoo's tag; offline, those in the cache."""
        from huggingface_hub import constants

        try:
            return search("", author=self.organisation)
        except UnreachableError as error:
            if not (cached := self._cached()):
                raise error from None
            if not constants.HF_HUB_OFFLINE:
                warnings.warn(f"{error}; listed is what is in the cache", stacklevel=2)
            return cached

    def pull(self, name: str) -> Path | None:
        """Bring ``name`` or ``name@revision`` to the client's cache."""
        if not NAME.fullmatch(name.partition("@")[0]):
            return None
        try:
            return _snapshot(f"{self.organisation}/{name}")
        except _NotThereError:
            return None

    def publish(self, folder: Path, name: str, files: list[Path]) -> str:
        """Make the repository if need be, and put the files there in one commit.

        Other files that are there stay.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        api, repository = HfApi(), f"{self.organisation}/{name}"
        with _told(f"hf-hub:{repository}", "published"):
            try:
                api.create_repo(repository)
                new = True
            except HfHubHTTPError as error:
                if error.response is None or error.response.status_code != 409:
                    raise
                new = False  # 409: it is there already
            try:
                commit = api.upload_folder(
                    repo_id=repository,
                    folder_path=folder,
                    allow_patterns=[glob.escape(file.name) for file in files],
                    commit_message=f"Publish {name}",
                )
            except BaseException:
                # What went wrong is told, whatever becomes of this.
                with suppress(Exception):
                    # The Hub itself puts .gitattributes there, and nobody anything else.
                    if new and set(api.list_repo_files(repository)) <= {".gitattributes"}:
                        api.delete_repo(repository)
                raise
        return str(commit.repo_url)

    def _cached(self) -> list[Listed]:
        from huggingface_hub import CacheNotFound, scan_cache_dir

        try:
            repositories = scan_cache_dir().repos
        except CacheNotFound:
            return []
        listed = []
        for repository in sorted(repositories, key=lambda one: one.repo_id):
            organisation, _, name = repository.repo_id.rpartition("/")
            if repository.repo_type != "model" or organisation != self.organisation:
                continue
            newest = max(repository.revisions, key=lambda one: one.last_modified, default=None)
            if newest and not lacking(newest.snapshot_path):
                listed += _listing(newest.snapshot_path, name, f"hf://{organisation}")
        return listed


class Plugins(Hub):
    """The models that installed plugins know; each says where its weights are."""

    def models(self) -> list[Listed]:
        """What they offer, of every plugin."""
        listed = []
        for name in names("pretrained"):
            cell, *rest = name.split("-")
            architecture = f"{cell}-{rest[0]}" if cell == "ms" and rest else cell
            listed.append(Listed(name, architecture, "", "plugins"))
        return listed

    def pull(self, name: str) -> Path | None:
        """Bring a model from where its plugin says, if the weights are those that it knows."""
        if (found := find("pretrained", name)) is None:
            return None
        model, plugin = found
        folder = bring(model.ref)
        check_weights(folder, name, model.sha256, plugin.source)
        return folder


class _NotThereError(ZooError):
    """There is no such repository."""


def bring(ref: str) -> Path:
    """The folder that ``local-dir:PATH`` or ``hf-hub:org/name@revision`` means, brought here.

    Raises ZooError where there is none.
    """
    if ref.startswith("local-dir:"):
        folder = Path(os.path.expanduser(ref.removeprefix("local-dir:")))  # may have no such ~user
        if not os.path.isdir(folder):
            raise ZooError(f"there is no folder {folder}; give local-dir: the folder of a model")
        if missing := lacking(folder):
            raise ZooError(f"{folder} is no whole model: it has no {' and no '.join(missing)}")
        return folder
    return _snapshot(ref.removeprefix("hf-hub:").removeprefix("hf://"))


def _snapshot(path: str) -> Path:
    """The folder of ``org/name`` or ``org/name@revision``, brought to the client's cache.

    Raises ZooError where it is not there, cannot be had, or is no model of the zoo.
    """
    from huggingface_hub import snapshot_download

    repository, _, revision = path.partition("@")
    with _told(f"hf-hub:{path}", "had"):
        folder = Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=PARTS)
        )
    if missing := lacking(folder):
        raise UnreachableError(
            f"hf-hub:{path} is no whole model of the zoo: it has no {' and no '.join(missing)}; "
            "pull it again, with a network, or another"
        )
    return folder


def search(text: str, author: str | None = None) -> list[Listed]:
    """The models on the Hugging Face Hub that bear the zoo's tag and match a text.

    Raises UnreachableError where the Hub does not answer.
    """
    from huggingface_hub import HfApi

    with _told("the Hugging Face Hub", "searched"):
        found = list(HfApi().list_models(filter=LIBRARY, search=text or None, author=author))
    return sorted(map(_listed, found))


def _listing(folder: Path, name: str, hub: str) -> list[Listed]:
    """What the config in a model's folder tells; nothing, with a warning, where it is bad."""
    try:
        config = read_config(folder)
    except ZooError as error:
        warnings.warn(f"{folder} is left out: {error}", stacklevel=3)
        return []
    return [Listed(name, config.architecture, config.data.name or "", hub)]


def _listed(model: ModelInfo) -> Listed:
    """What the tags of a repository tell, which its card has put there."""
    tags = dict(tag.split(":", 1) for tag in model.tags or [] if ":" in tag)
    organisation, _, name = model.id.rpartition("/")
    return Listed(
        name, tags.get("architecture", ""), tags.get("dataset", ""), f"hf://{organisation}"
    )


def check_name(name: str) -> None:
    """Raise ZooError for what is no name of a model."""
    if not NAME.fullmatch(name):
        raise ZooError(f"{name!r} is no name of a model: letters, digits, '.', '_' and '-'")


def check_weights(folder: Path, name: str, sha256: str, told_by: str) -> None:
    """Raise ZooError if a model's weights are not those that are known by its name."""
    check_parts(folder, [folder / WEIGHTS])
    found = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    if found != sha256:
        raise ZooError(
            f"{folder / WEIGHTS} is not {name}: it has sha256 {found[:12]}…, {told_by} says "
            f"{sha256[:12]}…; pull it again, or if you want these: local-dir:{folder}"
        )


@contextmanager
def _told(what: str, done: str) -> Iterator[None]:
    """Whatever the client of the Hub raises, as a ZooError of one line."""
    from huggingface_hub import errors
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    except errors.HFValidationError as error:
        raise ZooError(f"{what} is no name of a repository (hf-hub:org/name): {error}") from None
    except errors.RepositoryNotFoundError:
        raise _NotThereError(
            f"{what} is not there, or not for you to see; check the name, or log in: hf auth login"
        ) from None
    except errors.LocalEntryNotFoundError as error:
        raise UnreachableError(
            f"{what} is not in the cache and the Hub cannot be reached; "
            "check the network, or unset HF_HUB_OFFLINE"
        ) from error
    except errors.LocalTokenNotFoundError:
        raise ZooError(f"{what} needs a token; log in: hf auth login, or set HF_TOKEN") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise UnreachableError(
                f"{what} cannot be {done} with this token ({status}); log in to an account that "
                "may: hf auth login, or set HF_TOKEN"
            ) from None
        reason = str(error).strip().splitlines()[-1]
        raise ZooError(f"{what} cannot be {done}: {reason}") from None
    except ZooError:
        raise
    except Exception as error:  # of the network, of the disk, of what the client stands on
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        kind = ZooError if isinstance(error, OSError) and error.errno else UnreachableError
        raise kind(f"{what} cannot be {done} ({reason}); try again") from error
