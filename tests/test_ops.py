"""Operations of cells: warping copies and shifts exactly, and convolution may be normalized."""

import pytest
import torch

import zoo
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
