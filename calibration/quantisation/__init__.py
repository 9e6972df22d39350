"""Quantise an exported program by a recipe: int8 weights, and activations with fixed or with run-time ranges.

The result is again an exported program, in PT2E's operators, the same for every engine:

* A *static* layer is an ``aten.linear`` or ``aten.conv2d`` whose weight comes from
  ``quantized_decomposed.dequantize_per_channel`` and whose input comes from ``dequantize_per_tensor`` with a constant
  scale and zero point. Its output goes through ``quantize_per_tensor`` and ``dequantize_per_tensor``, unless the recipe
  fixes no ranges for outputs.
* A *dynamic* layer has the same weight. Its input goes through ``choose_qparams_per_token_asymmetric``,
  ``quantize_per_token`` and ``dequantize_per_token``; its output is float32.
* A *weight-only* layer has the same weight; its input and output are float32.

All other operations stay unchanged.

``recipe`` says what is quantised, ``layers`` finds the layers in a program, ``balancing`` smooths and rotates inputs,
``quantising`` quantises, and ``noise`` measures the loss. The ranges of activations are chosen by
`vmp_edge.calibration.observers.RangeObserver`, with the options that ``ranges`` takes from the recipe.
"""

from .balancing import hadamard
from .layers import LAYERS, Recorder, input_of, layers
from .noise import decibels, signal_to_noise
from .quantising import quantise
from .ranges import range_options, static_ranges
from .recipe import ACTIVATIONS, DYNAMIC, FLOAT, FOLDER, HALF, STATIC, Recipe, load, names

__all__ = [
    "ACTIVATIONS",
    "DYNAMIC",
    "FLOAT",
    "FOLDER",
    "HALF",
    "LAYERS",
    "STATIC",
    "Recipe",
    "Recorder",
    "decibels",
    "hadamard",
    "input_of",
    "layers",
    "load",
    "names",
    "quantise",
    "range_options",
    "signal_to_noise",
    "static_ranges",
]
