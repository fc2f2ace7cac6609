"""Hubs, which hold models by name: folders of models, and accounts on the Hugging Face Hub."""

from __future__ import annotations

import glob
import os
import re
import shutil
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from zoo.atomic import atomic_folder, make_folder
from zoo.errors import ConfigError, HubError, NotFoundError, ZooError
from zoo.hub.download import LARGEST_FILE, check_listing, limited
from zoo.model_folder import (
    PARTS,
    REQUIRED,
    WEIGHTS,
    check_parts,
    missing_files,
    parts_of,
    read_config,
    sha256_of,
)

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

__all__ = [
    "LIBRARY",
    "NAME",
    "Folder",
    "Hub",
    "HuggingFace",
    "Listed",
    "UnreachableError",
    "check_name",
    "check_weights",
    "fetch",
    "open_hub",
    "search",
]

#: The tag of the zoo's models on the Hub.
LIBRARY = "spatiotemporal-zoo"

#: The name of a model. It is safe as a part of a path or an address.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


class UnreachableError(HubError):
    """The hub is unreachable or its copy is unusable; other hubs may have the model."""


class Listed(NamedTuple):
    """A model of a hub.

    Attributes:
        name: its name.
        architecture: its architecture, "" if unknown.
        data: its data set, "" if unknown.
        hub: the hub.
        published: for a checkpoint of another project, where it and its scores are from.
    """

    name: str
    architecture: str
    data: str
    hub: str
    published: str = ""


class Hub(ABC):
    """A place that holds models by name."""

    @abstractmethod
    def models(self) -> list[Listed]:
        """List its models."""

    @abstractmethod
    def pull(self, name: str) -> Path | None:
        """Return a model's folder, downloaded if necessary; None if the hub does not have it."""

    def publish(self, folder: Path, name: str, files: list[Path]) -> str:
        """Copy files of a model folder to the hub, all or none, and return the address."""
        raise HubError("this hub is read-only; publish to a folder or to hf://org")


def open_hub(place: str) -> Hub:
    """Return the hub at a place: ``hf://org``, or the path of a folder of models."""
    organisation = place.removeprefix("hf://").rstrip("/")
    if not place.startswith("hf://"):
        return Folder(Path(os.path.expanduser(place)))
    if not NAME.fullmatch(organisation):
        raise ConfigError(f"{place!r} is not an account on the Hugging Face Hub; expected hf://org")
    return HuggingFace(organisation)


class Folder(Hub):
    """A folder with a folder for each model. Models are used in place."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def models(self) -> list[Listed]:
        """List the folders that hold a config and weights; warn of invalid configs."""
        if not os.path.isdir(self.path):
            raise UnreachableError(f"the hub {self.path} is not a folder")
        folders = sorted(weights.parent for weights in self.path.glob(f"*/{WEIGHTS}"))
        return [model for f in folders for model in _listing(f, f.name, str(self.path))]

    def pull(self, name: str) -> Path | None:
        """Return the model's folder, if it is complete."""
        folder = self.path / name
        return folder if NAME.fullmatch(name) and not missing_files(folder) else None

    def publish(self, folder: Path, name: str, files: list[Path]) -> str:
        """Copy the files; a model of the same name is replaced atomically.

        Raises:
            HubError: if the target holds anything but a published model.
        """
        check_name(name)
        target = make_folder(self.path) / name
        if target.is_symlink():
            raise HubError(f"{target} is a link; choose another name, or delete it")
        destination, source = target.resolve(), folder.resolve()
        if destination == source:
            raise HubError(f"{folder} is already published: it is the model's folder in this hub")
        if destination in source.parents or source in destination.parents:
            raise HubError(f"{target} and {folder} are nested; choose another hub or name")
        known = {target / part.relative_to(target).parts[0] for part in parts_of(target)}
        if target.is_dir() and {*target.iterdir()} - known:
            raise HubError(
                f"{target} exists and holds more than a model; choose another name, or delete it"
            )
        with atomic_folder(target) as temporary:
            for file in files:
                copy = temporary / file.relative_to(folder)
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, copy)
        return str(target)


class HuggingFace(Hub):
    """An account on the Hugging Face Hub, or on the server at ``HF_ENDPOINT``."""

    def __init__(self, organisation: str) -> None:
        self.organisation = organisation

    def models(self) -> list[Listed]:
        """List the account's repositories with the zoo's tag; offline, those in the cache."""
        from huggingface_hub import constants

        try:
            return search("", author=self.organisation)
        except UnreachableError as error:
            if not (cached := self._cached()):
                raise error from None
            if not constants.HF_HUB_OFFLINE:
                warnings.warn(f"{error}; listing cached models only", stacklevel=2)
            return cached

    def pull(self, name: str) -> Path | None:
        """Download ``name`` or ``name@revision`` to the client's cache."""
        if not NAME.fullmatch(name.partition("@")[0]):
            return None
        try:
            return _snapshot(f"{self.organisation}/{name}")
        except NotFoundError:
            return None

    def publish(self, folder: Path, name: str, files: list[Path]) -> str:
        """Create the repository if necessary, and upload the files in one commit.

        Other files in the repository stay.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        api, repository = HfApi(), f"{self.organisation}/{name}"
        with _translate_errors("publish", f"hf-hub:{repository}"):
            try:
                api.create_repo(repository)
                new = True
            except HfHubHTTPError as error:
                if error.response is None or error.response.status_code != 409:
                    raise
                new = False  # 409: it already exists
            try:
                commit = api.upload_folder(
                    repo_id=repository,
                    folder_path=folder,
                    allow_patterns=[glob.escape(f.relative_to(folder).as_posix()) for f in files],
                    commit_message=f"Publish {name}",
                )
            except BaseException:
                # Clean up; the original error is raised, whether or not this succeeds.
                with suppress(Exception):
                    # The Hub itself adds .gitattributes.
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
        for repository in sorted(repositories, key=lambda repository: repository.repo_id):
            organisation, _, name = repository.repo_id.rpartition("/")
            if repository.repo_type != "model" or organisation != self.organisation:
                continue
            newest = max(
                repository.revisions, key=lambda revision: revision.last_modified, default=None
            )
            if newest and not missing_files(newest.snapshot_path):
                listed += _listing(newest.snapshot_path, name, f"hf://{organisation}")
        return listed


def fetch(ref: str) -> Path:
    """Return the folder of ``local-dir:PATH`` or ``hf-hub:org/name@revision``, downloaded.

    Raises:
        HubError: if there is none, or it is not a complete model.
    """
    if ref.startswith("local-dir:"):
        folder = Path(os.path.expanduser(ref.removeprefix("local-dir:")))  # may have no such ~user
        if not os.path.isdir(folder):
            raise NotFoundError(f"folder {folder} not found; expected local-dir:FOLDER of a model")
        if missing := missing_files(folder):
            raise HubError(f"{folder} is not a complete model: missing {', '.join(missing)}")
        return folder
    return _snapshot(ref.removeprefix("hf-hub:").removeprefix("hf://"))


def _snapshot(path: str) -> Path:
    """Download ``org/name`` or ``org/name@revision`` to the client's cache."""
    from huggingface_hub import snapshot_download

    repository, _, revision = path.partition("@")
    with _translate_errors("download", f"hf-hub:{path}"):
        parts = _listed_parts(repository, revision or None)
        if parts is not None and (absent := [name for name in REQUIRED if name not in parts]):
            raise _incomplete(path, absent)
        names = PARTS if parts is None else [glob.escape(name) for name in parts]
        with limited(LARGEST_FILE if parts is None else max(parts.values())):
            folder = Path(
                snapshot_download(repository, revision=revision or None, allow_patterns=names)
            )
    if missing := missing_files(folder):
        raise _incomplete(path, missing)
    return folder


def _incomplete(path: str, missing: list[str]) -> UnreachableError:
    return UnreachableError(
        f"hf-hub:{path} is not a complete model of the zoo: missing {', '.join(missing)}; "
        "pull it again while online, or choose another"
    )


def _listed_parts(repository: str, revision: str | None) -> dict[str, int] | None:
    """The sizes of the parts of a model in a repository; None if the server does not answer."""
    from huggingface_hub import HfApi, constants, errors

    if constants.HF_HUB_OFFLINE:
        return None
    try:
        with limited():
            info = HfApi().model_info(repository, revision=revision, files_metadata=True)
    except (errors.HFValidationError, ZooError):
        raise
    except Exception:  # snapshot_download then uses the cache, or reports why
        return None
    files = {file.rfilename: file.size for file in info.siblings or []}
    return check_listing(f"hf-hub:{repository}", str(info.sha), files)


def search(text: str, author: str | None = None) -> list[Listed]:
    """List the models on the Hugging Face Hub that have the zoo's tag and match a text.

    Raises:
        UnreachableError: if the Hub does not answer.
    """
    from huggingface_hub import HfApi

    with _translate_errors("search", "the Hugging Face Hub"), limited():
        found = list(HfApi().list_models(filter=LIBRARY, search=text or None, author=author))
    return sorted(map(_listed, found))


def _listing(folder: Path, name: str, hub: str) -> list[Listed]:
    """The model in a folder as a list; empty, with a warning, if its config is invalid."""
    try:
        config = read_config(folder)
    except ZooError as error:
        warnings.warn(f"{folder} is skipped: {error}", stacklevel=3)
        return []
    return [Listed(name, config.architecture, config.data.title or config.data.name or "", hub)]


def _listed(model: ModelInfo) -> Listed:
    """A repository's model, from the tags that its card has set."""
    tags = dict(tag.split(":", 1) for tag in model.tags or [] if ":" in tag)
    organisation, _, name = model.id.rpartition("/")
    return Listed(
        name, tags.get("architecture", ""), tags.get("dataset", ""), f"hf://{organisation}"
    )


def check_name(name: str) -> None:
    """Raise ConfigError if a model cannot have that name."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not a valid model name; use letters, digits, '.', '_' and '-'"
        )


def check_weights(folder: Path, name: str, sha256: str, source: str) -> None:
    """Raise HubError if a model's weights do not have the checksum that a source states."""
    check_parts(folder, [folder / WEIGHTS])
    actual = sha256_of(folder / WEIGHTS)
    if actual != sha256:
        raise HubError(
            f"{folder / WEIGHTS} is not {name}: its sha256 is {actual[:12]}…, {source} states "
            f"{sha256[:12]}…; pull it again, or to use it anyway: local-dir:{folder}"
        )


@contextmanager
def _translate_errors(action: str, target: str) -> Iterator[None]:
    """Raise what the client of the Hub raises as a HubError of one line."""
    from huggingface_hub import errors
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    except errors.HFValidationError as error:
        raise ConfigError(
            f"{target} is not a valid repository name (hf-hub:org/name): {error}"
        ) from None
    except errors.RepositoryNotFoundError:
        raise NotFoundError(
            f"{target} not found, or private; check the name, or log in: hf auth login"
        ) from None
    except errors.LocalEntryNotFoundError as error:
        raise UnreachableError(
            f"{target} is not in the cache and the Hub is unreachable; "
            "check the network, or unset HF_HUB_OFFLINE"
        ) from error
    except errors.LocalTokenNotFoundError:
        raise HubError(f"{target} needs a token; log in: hf auth login, or set HF_TOKEN") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise UnreachableError(
                f"cannot {action} {target}: permission denied ({status}); log in to an account "
                "with access: hf auth login, or set HF_TOKEN"
            ) from None
        reason = str(error).strip().splitlines()[-1]
        raise HubError(f"cannot {action} {target}: {reason}") from None
    except ZooError:
        raise
    except Exception as error:  # of the network, the disk, or a dependency of the client
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        kind = HubError if isinstance(error, OSError) and error.errno else UnreachableError
        raise kind(f"cannot {action} {target} ({reason}); try again") from error
