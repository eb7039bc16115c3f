"""JPEG pictures decoded by the GPU with nvImageCodec, so that only their compressed bytes go up.

Its pixels differ from those of the processor's decoder by a few grey levels, so it is used only when asked for.
"""

from __future__ import annotations

import io
from typing import Any, cast

import numpy as np

from mal_trt.base.errors import InputError, RunError, one_line
from mal_trt.cuda.crop import DevicePicture
from mal_trt.cuda.driver import Driver
from mal_trt.formats.images import ImageSource, read_picture

PACKAGE = "nvidia-nvimgcodec-cu13"
JPEG, END = b"\xff\xd8\xff", b"\xff\xd9"


class JpegDecoder:
    """Decodes whole JPEG pictures in RGB or grey; every other picture is decoded by the processor. Not thread-safe.

    To be used with the driver's context current. InputError without nvImageCodec.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._codec: Any = _import()
        try:
            self._decoder = self._codec.Decoder(device_id=driver.device.index, options=":fancy_upsampling=1")
            self._params = self._codec.DecodeParams(
                apply_exif_orientation=False, color_spec=self._codec.ColorSpec.SRGB, allow_any_depth=False
            )
        except Exception as error:  # its exceptions share no base class
            raise RunError(f"nvImageCodec cannot be used ({one_line(error)}); use --decode cpu") from None
        self._stream = driver.create_stream()

    def load(self, source: ImageSource, file_name: str, expected: tuple[int, int]) -> np.ndarray | DevicePicture:
        """Pixels uint8 [H,W,3] RGB of one picture: on the GPU if nvImageCodec can decode it, else a NumPy array.

        expected: width and height of the document. ImageProblem as for `ImageSource.load`.
        """
        data = source.read(file_name)
        image = self._decoded(data, expected)
        if image is None:
            return read_picture(io.BytesIO(data), expected)
        self._driver.synchronize(self._stream)
        return image

    def _decoded(self, data: bytes, expected: tuple[int, int]) -> DevicePicture | None:
        """None for what is not a plain JPEG: the processor's decoder then decodes it, or says what is wrong."""
        # A JPEG that is cut short is decoded without a word.
        if not data.startswith(JPEG) or END not in data[-16:]:
            return None
        try:
            code = self._codec.CodeStream(data)
            if (code.width, code.height) != expected or code.num_channels not in (1, 3):
                return None
            image = self._decoder.decode(code, params=self._params, cuda_stream=self._stream)
        except Exception:
            return None
        width, height = expected
        plain = image is not None and (tuple(image.shape), image.dtype) == ((height, width, 3), np.uint8)
        contiguous = plain and tuple(image.strides) == (3 * width, 3, 1)
        return cast(DevicePicture, image) if contiguous else None

    def close(self) -> None:
        """Free it."""
        self._decoder = None
        self._driver.destroy_stream(self._stream)


def _import() -> Any:
    try:
        from nvidia import nvimgcodec  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError(
            f'decode gpu: nvImageCodec cannot be imported ({error}); run: pip install "{PACKAGE}[all]" (CUDA 12: '
            "-cu12, on a Jetson -tegra-cu12), or use --decode cpu"
        ) from None
    return nvimgcodec
