"""Heads: found by name, saved with the model, and clear errors for those that are missing."""

import json

import pytest
import torch

import zoo
from zoo.errors import ZooError
from zoo.head import FrameHead


def saved(tmp_path, **options):
    """Save a small model and return its folder."""
    torch.manual_seed(0)
    model = zoo.create("convlstm", hidden=2, layers=2, **options)
    return zoo.save(model, tmp_path / "model")


def edit_config(folder, edit):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))


def test_config_without_head_loads_as_frame_head(tmp_path):
    """Models that were saved before heads existed."""
    folder = saved(tmp_path)
    frames = torch.rand(1, 3, 1, 8, 8)
    expected = zoo.load(f"local-dir:{folder}").predict(frames, 2)

    def remove_head(values):
        for key in [key for key in values if key.startswith("head")]:
            del values[key]

    edit_config(folder, remove_head)
    model = zoo.load(f"local-dir:{folder}")
    assert model.config.head == "frame"
    assert isinstance(model.network.head, FrameHead)
    assert torch.equal(model.predict(frames, 2), expected)


def test_unknown_head_suggests_the_nearest():
    with pytest.raises(ZooError, match=r"'chang'.*change"):
        zoo.create("convlstm", head="chang")


def test_unknown_option_of_a_head_is_named():
    with pytest.raises(ZooError, match=r"'change'.*'scal'.*scale"):
        zoo.create("convlstm", head="change", head_options={"scal": 1})


def test_head_of_a_plugin_that_is_not_installed_names_the_plugin(tmp_path):
    folder = saved(tmp_path, head="change")

    def change_plugin(values):
        values["head"] = "mixture"
        values["head_plugin"] = {"distribution": "zoo-mixture", "version": "1.2"}

    edit_config(folder, change_plugin)
    with pytest.raises(ZooError, match=r"'mixture'.*pip install zoo-mixture==1\.2"):
        zoo.load(f"local-dir:{folder}")


def test_weights_of_another_head_are_rejected(tmp_path):
    folder = saved(tmp_path, head="change")
    edit_config(folder, lambda values: values.update(head="frame", head_options={}))
    with pytest.raises(ZooError, match=r"head\.weight"):
        zoo.load(f"local-dir:{folder}")


def test_parameter_names_of_published_weights_are_unchanged():
    """Renaming a parameter would make existing weights unloadable."""

    def head_weights(head):
        model = zoo.create("convlstm", hidden=2, layers=2, head=head)
        return {name for name in model.network.state_dict() if name.startswith("head.")}

    assert head_weights("frame") == {"head.weight", "head.bias"}
    assert head_weights("change") == {"head.conv.weight", "head.conv.bias"}
