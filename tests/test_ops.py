"""Operations of cells: warping and activations are exact, and convolution takes several maps."""

import pytest
import torch

import zoo
from zoo.convolutions import _Scratch
from zoo.errors import ConfigError

#: Largest error by dtype: coordinates are rounded to float32, or to float64 for float64 maps.
ROUNDING = {
    torch.float32: 5e-5,
    torch.float64: 1e-12,
    torch.bfloat16: 5e-5,
    torch.float16: 5e-5,
}
DTYPES = list(ROUNDING)
FORMATS = [torch.contiguous_format, torch.channels_last]
SIZES = [(1, 1), (7, 5), (64, 48), (512, 512)]


def noise(size, dtype, memory_format=torch.contiguous_format, channels=2):
    x = torch.rand(2, channels, *size, generator=torch.Generator().manual_seed(0))
    return x.to(dtype).contiguous(memory_format=memory_format)


def constant_flow(x, *displacements, dtype=torch.float32):
    """One field per displacement (along W, along H)."""
    flow = torch.tensor(displacements, dtype=dtype)[None, :, :, None, None]  # (1, L, 2, 1, 1)
    return flow.expand(len(x), -1, -1, *x.shape[-2:])


def shifted(x, u, v, padding):
    """x at every pixel's position + (u, v), by indexing."""
    height, width = x.shape[-2:]
    rows, columns = torch.arange(height) + v, torch.arange(width) + u
    result = x[:, :, rows.clamp(0, height - 1)][:, :, :, columns.clamp(0, width - 1)]
    if padding == "zeros":
        inside = ((rows >= 0) & (rows < height))[:, None] & (columns >= 0) & (columns < width)
        result = result * inside
    return result


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("flow_dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_zero_flow_copies_the_map(size, dtype, flow_dtype, memory_format):
    x = noise(size, dtype, memory_format)
    for padding in ("zeros", "border"):
        flow = constant_flow(x, (0, 0), dtype=flow_dtype)
        warped = zoo.warp(x, flow, align_corners=True, padding=padding)
        assert warped.dtype == dtype
        torch.testing.assert_close(warped[:, 0], x, rtol=0, atol=ROUNDING[dtype])


@pytest.mark.slow
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("flow_dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES[1:], ids=str)
def test_integer_flow_shifts_the_map(size, dtype, flow_dtype, memory_format):
    x = noise(size, dtype, memory_format)
    displacements = [(1, 0), (0, -1), (-3, 2), (4, 4)]
    flow = constant_flow(x, *displacements, dtype=flow_dtype)
    for padding in ("zeros", "border"):
        warped = zoo.warp(x, flow, align_corners=True, padding=padding)
        assert warped.shape == (2, len(displacements), 2, *size)
        expected = torch.stack([shifted(x, u, v, padding) for u, v in displacements], dim=1)
        torch.testing.assert_close(warped, expected, rtol=0, atol=ROUNDING[dtype])


def test_fractional_flow_interpolates_bilinearly():
    x = noise((6, 8), torch.float64)
    warped = zoo.warp(x, constant_flow(x, (0.25, 0.5)), align_corners=True, padding="border")[:, 0]
    rows = (x + shifted(x, 0, 1, "border")) / 2
    expected = 0.75 * rows + 0.25 * shifted(rows, 1, 0, "border")
    torch.testing.assert_close(warped, expected)


def test_published_coordinates_stretch_the_map_by_one_pixel():
    x = torch.arange(8.0).expand(1, 1, 8, 8)  # every pixel holds its column
    warped = zoo.warp(x, constant_flow(x, (0, 0)), padding="border")[0, 0, 0, 0]
    expected = (torch.arange(8.0) * 8 / 7 - 0.5).clamp(0, 7)
    torch.testing.assert_close(warped, expected)


def test_gradients_agree_with_finite_differences():
    x = noise((4, 5), torch.float64, channels=1).requires_grad_()
    flow = (noise((4, 5), torch.float64)[:, None] - 0.4).requires_grad_()  # (B, 1, 2, H, W)
    assert torch.autograd.gradcheck(
        lambda x, flow: zoo.warp(x, flow, align_corners=True, padding="border"), (x, flow)
    )


def test_normalized_convolution_needs_the_size_of_its_maps():
    x = noise((6, 8), torch.float32)
    normalized = zoo.convolution(2, 4, 3, norm=True, size=(6, 8))(x)
    assert normalized.shape == (2, 4, 6, 8)
    torch.testing.assert_close(normalized.mean(dim=(1, 2, 3)), torch.zeros(2), rtol=0, atol=1e-6)
    with pytest.raises(ConfigError, match="size"):
        zoo.convolution(2, 4, 3, norm=True)


@pytest.fixture(params=["small maps", "large maps"])
def size_of_maps(request, monkeypatch):
    """What is computed again in the backward pass depends on the size of the maps."""
    monkeypatch.setattr("zoo.ops.SMALL", 2**22 if request.param == "small maps" else 0)


def gradients(function, *inputs):
    """The result of a function, and the gradients of its weighted sum."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    result = function(*leaves)
    weights = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view_as(result)
    return result, *torch.autograd.grad((result * weights).sum(), leaves)


@pytest.mark.usefixtures("size_of_maps")
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize(("kernel_size", "bias"), [(3, True), (1, False), (5, True)])
def test_convolution_of_several_maps_is_that_of_their_concatenation(
    kernel_size, bias, memory_format
):
    conv = zoo.convolution(5, 4, kernel_size, bias=bias).double()
    maps = [noise((6, 8), torch.float64, memory_format, channels) for channels in (2, 3)]
    joint = gradients(conv, *maps)
    apart = gradients(lambda *x: conv(torch.cat(x, dim=1)), *maps)
    torch.testing.assert_close(joint, apart)
    grads = []
    for inputs in (maps, [torch.cat(maps, dim=1)]):
        conv.zero_grad()
        conv(*inputs).square().sum().backward()
        grads.append([p.grad for p in conv.parameters()])
    torch.testing.assert_close(*grads)


@pytest.mark.usefixtures("size_of_maps")
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("kernel_size", "bias"), [(5, True), (7, False), (15, True)])
@pytest.mark.parametrize("size", [(8, 8), (9, 21), (4, 6)], ids=str)
def test_large_kernels_agree_with_torch_in_float32(kernel_size, bias, size, batch, memory_format):
    torch.manual_seed(0)
    conv = zoo.convolution(5, 4, kernel_size, bias=bias)
    exact = torch.nn.functional.conv2d
    conv = conv.to(memory_format=memory_format)
    maps = [torch.randn(batch, channels, *size) for channels in (2, 3)]
    maps = [x.to(memory_format=memory_format) for x in maps]
    parameters = list(conv.parameters())

    def theirs(a, b, *parameters):
        return exact(torch.cat([a, b], dim=1), *parameters, padding=kernel_size // 2)

    def ours(a, b, weight, bias=None):
        return zoo.convolve(a, b, weight=weight, bias=bias)

    expected = gradients(theirs, *(x.double() for x in [*maps, *parameters]))
    for result, exactly in zip(gradients(ours, *maps, *parameters), expected, strict=True):
        assert (result - exactly).abs().max() < 2e-6 * exactly.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_update_agrees_with_its_equation(dtype):
    f, c, i, g = noise((6, 8), dtype, channels=8).split(2, dim=1)
    c = c.float()
    pair = (
        gradients(zoo.update, f, c, i, g),
        gradients(lambda f, c, i, g: f * c + i * g, f, c, i, g),
    )
    assert pair[0][0].dtype == torch.float32
    torch.testing.assert_close(*pair, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("size_of_maps")
def test_recomputed_functions_have_the_same_gradients():
    x = noise((6, 8), torch.float64)
    plain = gradients(lambda x: x.exp().sin(), x)
    torch.testing.assert_close(
        gradients(lambda x: zoo.recomputed(lambda y: y.exp().sin(), x), x), plain
    )


def test_functions_of_large_maps_are_computed_again(monkeypatch):
    monkeypatch.setattr("zoo.ops.SMALL", 0)
    calls = []
    x = noise((6, 8), torch.float32).requires_grad_()
    zoo.recomputed(lambda x: calls.append(x) or x.exp(), x).sum().backward()
    assert len(calls) == 2


def test_convolutions_can_be_trained_after_inference(monkeypatch):
    monkeypatch.setattr("zoo.convolutions._scratch", _Scratch())
    conv = zoo.convolution(4, 4, 5)
    maps = [noise((8, 8), torch.float32).requires_grad_() for _ in range(2)]
    with torch.inference_mode():
        expected = conv(*maps)
    result = conv(*maps)
    result.sum().backward()
    torch.testing.assert_close(result, expected.clone())
    assert maps[0].grad.isfinite().all()


def test_convolution_of_large_maps_keeps_no_concatenation(monkeypatch):
    monkeypatch.setattr("zoo.ops.SMALL", 0)
    conv = zoo.convolution(5, 4, 3)
    maps = [noise((6, 8), torch.float32, channels=c).requires_grad_() for c in (2, 3)]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        conv(*maps)
    assert {x.data_ptr() for x in kept} == {x.data_ptr() for x in (conv.weight, *maps)}


@pytest.mark.usefixtures("size_of_maps")
def test_convolution_of_several_maps_obeys_mixed_precision():
    conv = zoo.convolution(4, 4, 3)
    maps = [noise((6, 8), torch.float32).requires_grad_() for _ in range(2)]
    with torch.autocast("cpu", torch.bfloat16):
        result = conv(*maps)
    result.float().sum().backward()
    assert result.dtype == torch.bfloat16
    assert maps[0].grad.dtype == conv.weight.grad.dtype == torch.float32
    torch.testing.assert_close(result.float(), conv(*maps), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_activations_are_those_of_their_names(dtype):
    gates = noise((6, 8), dtype, channels=8) * 8 - 4

    def expected(x):
        i, f, g, o = x.chunk(4, dim=1)
        return torch.cat([i.sigmoid(), (f + 1).sigmoid(), g.tanh(), o], dim=1)

    ours = gradients(lambda x: torch.cat(zoo.activate(1 * x, "ifg_", 1.0), dim=1), gates)
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(ours, gradients(expected, gates), rtol=0, atol=tolerance)


def test_gradients_of_activations_have_gradients():
    x = torch.rand(1, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(
        lambda x: torch.cat(zoo.activate(1 * x, "ifg_"), dim=1), (x,)
    )


def test_a_second_backward_pass_through_activations_doubles_the_gradient():
    x = torch.rand(1, 4, 2, 2, requires_grad=True)
    (gate,) = zoo.activate(1 * x, "i")
    gate.sum().backward(retain_graph=True)
    first = x.grad.clone()
    gate.sum().backward()
    torch.testing.assert_close(x.grad, 2 * first)


def test_activations_need_no_memory_of_their_own():
    gates = noise((6, 8), torch.float32, channels=8)
    pointers = {gate.untyped_storage().data_ptr() for gate in zoo.activate(gates, "ifgo")}
    assert pointers == {gates.untyped_storage().data_ptr()}


@pytest.mark.usefixtures("size_of_maps")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_tanh_and_gated_agree_with_torch(dtype):
    x = torch.cat([torch.linspace(-100, 100, 801), torch.linspace(-1e-3, 1e-3, 800)]).to(dtype)
    gate = torch.linspace(0, 1, 1601).to(dtype)
    tolerance = {torch.float32: 5e-7, torch.float64: 1e-15, torch.bfloat16: 1e-2}[dtype]
    for ours, theirs, inputs in (
        (zoo.tanh, torch.tanh, [x]),
        (zoo.gated, lambda o, x: o * torch.tanh(x), [gate, x]),
    ):
        pair = gradients(ours, *inputs), gradients(theirs, *inputs)
        torch.testing.assert_close(*pair, rtol=tolerance, atol=tolerance)


def test_cells_run_under_function_transforms():
    model = zoo.create("ms-predrnn", hidden=2, layers=3)
    weights, frames = dict(model.named_parameters()), noise((8, 8), torch.float32, channels=1)

    def loss(weights, sequence):
        return torch.func.functional_call(model, weights, (sequence[None, None], 2)).sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, frames)
    assert per_sample["network.embed.weight"].shape == (2, 2, 1, 1, 1)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated")
def test_activations_are_traced_as_operations_of_torch():
    def cell(gates):
        i, f, g, o = zoo.activate(1 * gates, "ifgo")
        return zoo.gated(o, f + i * zoo.tanh(g))

    graph = str(torch.jit.trace(cell, noise((6, 8), torch.float32, channels=8)).graph)
    assert "aten::tanh" in graph
    assert "PythonOp" not in graph
