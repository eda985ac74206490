"""Surfaces for other programs: VTK for ParaView, PLY and OBJ for Blender and printers."""

import base64
import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps

from mining import InputError
from mining.evaluation.curves import Surface
from mining.plotting.losses import Array, extent
from mining.storage.files import write_atomically

#: Fields of a surface that are written beside its coordinates, where it has them.
_FIELDS = ("loss", "accuracy", "loss_test", "accuracy_test", "loss_error", "accuracy_error")


@dataclass(frozen=True)
class Mesh:
    """A surface as triangles; points without a finite height have no faces."""

    points: Array  # (n, 3): α, β and the height
    colors: Array  # (n, 3): red, green and blue from 0 to 1
    faces: Array  # (m, 3): positions of the corners of a triangle


def mesh_of(
    surface: Surface,
    *,
    loss_cap: float | None = None,
    log_scale: bool = False,
    height: float | None = None,
    colormap: str = "viridis",
) -> Mesh:
    """Divide a surface into triangles; arguments and errors as ``export_surface``."""
    points, drawn = _points(surface, loss_cap, log_scale, height)
    colors = colormaps[colormap](_relative(points[:, 2]))[:, :3]
    return Mesh(points, colors, _faces(surface, drawn))


def export_surface(
    surface: Surface,
    path: Path,
    *,
    loss_cap: float | None = None,
    log_scale: bool = False,
    height: float | None = None,
    colormap: str = "viridis",
) -> None:
    """Write a surface as a mesh; the suffix is the format.

    Coordinates are α, β and the loss as it is drawn. ``.vts`` (VTK, binary) also has every array of
    the surface, unchanged; ``.ply`` (binary) has the loss and a colour of each point, ``.obj`` the
    colour. Points without a finite height have no faces in the latter two; in the first they lie
    at the highest finite loss, and their ``loss`` says what they are.

    Args:
        surface: The surface, A × B points.
        path: The file: ``.vts``, ``.ply`` or ``.obj``.
        loss_cap: Loss above which heights are cut off, nats.
        log_scale: Whether heights are the logarithm to base 10.
        height: Range of the heights, as a multiple of the longer axis; ``None``: as they are.
        colormap: The name of one of matplotlib.

    Raises:
        InputError: If the suffix is no such format, no loss can be drawn, or ``height`` is not
            positive.
    """
    writers = {".vts": _vts, ".ply": _ply, ".obj": _obj}
    if path.suffix not in writers:
        raise InputError(f"{path} must end in {', '.join(writers)}.")
    points, drawn = _points(surface, loss_cap, log_scale, height)
    colors = colormaps[colormap](_relative(points[:, 2]))[:, :3]
    write_atomically(path, writers[path.suffix](surface, points, drawn, colors))


def _points(
    surface: Surface, loss_cap: float | None, log_scale: bool, height: float | None
) -> tuple[Array, Array]:
    """Give the coordinates (A·B, 3) with α fastest, and which points have a height (A·B,)."""
    loss = surface.loss.numpy().T.ravel().copy()
    if loss_cap is not None:
        loss = np.minimum(loss, loss_cap)
    if log_scale:
        loss = np.log10(np.where(loss > 0, loss, np.nan))
    drawn = np.isfinite(loss)
    if not drawn.any():
        raise InputError("The surface has no loss that can be drawn.")
    low, high = extent(loss)
    heights = np.where(drawn, loss, high)
    x, y = np.meshgrid(surface.alphas.numpy(), surface.betas.numpy(), indexing="xy")
    if height is not None:
        if not height > 0:
            raise InputError(f"height must be positive, got {height}.")
        longer = max(np.ptp(x), np.ptp(y))
        heights = (heights - low) / (high - low or 1.0) * height * longer
    return np.stack([x.ravel(), y.ravel(), heights], 1), drawn


def _relative(heights: Array) -> Array:
    low, high = float(heights.min()), float(heights.max())
    return (heights - low) / (high - low or 1.0)


def _faces(surface: Surface, drawn: Array) -> Array:
    """Divide each cell into two triangles, shape ``(n, 3)``, if all its corners have a height."""
    rows, columns = len(surface.betas), len(surface.alphas)
    number = np.arange(rows * columns).reshape(rows, columns)
    corners = (number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1])
    a, b, c, d = (corner.ravel() for corner in corners)
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    whole: Array = faces[drawn[faces].all(1)]
    return whole


def _vts(surface: Surface, points: Array, drawn: Array, colors: Array) -> bytes:
    extents = f"0 {len(surface.alphas) - 1} 0 {len(surface.betas) - 1} 0 0"
    known = {name: getattr(surface, name) for name in _FIELDS}
    arrays = {name: v.numpy().T.ravel() for name, v in known.items() if v is not None}
    data = "\n".join(_data_array(name, values, 1) for name, values in arrays.items())
    return f"""<?xml version="1.0"?>
<VTKFile type="StructuredGrid" version="1.0" byte_order="LittleEndian" header_type="UInt64">
<StructuredGrid WholeExtent="{extents}">
<Piece Extent="{extents}">
<PointData Scalars="loss">
{data}
</PointData>
<Points>
{_data_array("points", points.ravel(), 3)}
</Points>
</Piece>
</StructuredGrid>
</VTKFile>
""".encode()


def _data_array(name: str, values: Array, components: int) -> str:
    content = np.ascontiguousarray(values, dtype="<f8").tobytes()
    packed = base64.b64encode(struct.pack("<Q", len(content)) + content).decode("ascii")
    about = f'type="Float64" Name="{name}" NumberOfComponents="{components}" format="binary"'
    return f"<DataArray {about}>{packed}</DataArray>"


def _ply(surface: Surface, points: Array, drawn: Array, colors: Array) -> bytes:
    faces = _faces(surface, drawn)
    header = [
        *("ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"),
        *(f"property double {name}" for name in ("x", "y", "z")),
        *(f"property uchar {name}" for name in ("red", "green", "blue")),
        *("property double loss", f"element face {len(faces)}"),
        *("property list uchar int vertex_indices", "end_header\n"),
    ]
    vertices = np.empty(len(points), dtype="<f8, <f8, <f8, u1, u1, u1, <f8")
    for column in range(3):
        vertices[f"f{column}"] = points[:, column]
        vertices[f"f{column + 3}"] = np.round(255 * colors[:, column])
    vertices["f6"] = surface.loss.numpy().T.ravel()
    triangles = np.empty(len(faces), dtype=[("num", "u1"), ("corners", "<i4", 3)])
    triangles["num"], triangles["corners"] = 3, faces
    return "\n".join(header).encode("ascii") + vertices.tobytes() + triangles.tobytes()


def _obj(surface: Surface, points: Array, drawn: Array, colors: Array) -> bytes:
    buffer = io.StringIO()
    buffer.write(f"# loss over the directions {' and '.join(surface.names)}: x y z r g b\n")
    for point, color in zip(points.tolist(), colors.tolist(), strict=True):
        values = [*map(repr, point), *(f"{value:.4f}" for value in color)]
        buffer.write(f"v {' '.join(values)}\n")
    for face in (_faces(surface, drawn) + 1).tolist():
        buffer.write(f"f {' '.join(map(str, face))}\n")
    return buffer.getvalue().encode()
