"""The scan and the convolution made of ordinary tensor operations, for NPUs and ONNX, where no kernel of ours can run.

The contract and the numbers are those of `vmp_edge.ops.reference`; the means differ. The operations are slices,
concatenation, reshape, multiply, add, exp and a sum over the states, all with static shapes. Unlike in the reference,
everything is computed in the dtype of the inputs, as devices do. States lie as (..., N, D), channels innermost, in at
most four dimensions. Only the form ``"scan"`` flips tensors; in the other forms a reversed scan takes its positions in
reversed order.

There are three forms. The first two cut the L tokens into chunks of `chunk` neighbours. The remainder comes first:
where `chunk` divides the number of patches, it is VideoMamba's class token alone.

* ``"loop"``: step through all chunks at once, from zero, for the state that each chunk adds. Carry the state from chunk
  to chunk by the same means. Step through all chunks again, from the right states. A chunk's decay is exp(A * the sum
  of its steps), which cannot overflow. Cumulative exponents with their inverses would overflow, and are not used
  anywhere here.
* ``"hillis-steele"``: instead of stepping, double log2(chunk) times (Hillis and Steele, 1986, doi 10.1145/7902.7903).
  This takes fewer operations and writes more elements.
* ``"scan"``: write one step as the body of PyTorch's scan operator, which runs it for each token. This form is for
  backends that have such an operator (ONNX has Scan): it takes few nodes, whatever the length. A reversed scan flips
  what it reads and writes, all of (B, L, D) or smaller. Both directions are one scan, folded into the batch. This form
  is for exported graphs only: elsewhere PyTorch would compile it.

`benchmarks/results/scan_chunked.md` says what each form costs and how far it is from the reference.

States lie as in the contract, (B, D, N). What is computed with them is in the dtype of the inputs, as everything here.

`scan` and `convolution` have the operators, `form` says how a scan is written. `chunks`, `carry` and `prefixes` are the
first two forms, on the `tokens` that all forms share; `torch_scan` is the third.
"""

from __future__ import annotations

from .activation import softplus
from .convolution import causal_conv_silu, causal_conv_silu_with_state
from .form import DEFAULT, FORMS, SOFTPLUS, Form
from .scan import bi_selective_scan, bi_selective_scan_with_state, selective_scan, selective_scan_with_state

__all__ = [
    "DEFAULT",
    "FORMS",
    "SOFTPLUS",
    "Form",
    "bi_selective_scan",
    "bi_selective_scan_with_state",
    "causal_conv_silu",
    "causal_conv_silu_with_state",
    "selective_scan",
    "selective_scan_with_state",
    "softplus",
]
