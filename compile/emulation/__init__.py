"""Run a bundle that is for another processor, a GPU or an NPU, on this machine, to compare it with the source model.

Every build runs its bundle beside the source model. Where this machine cannot be the target, an engine of this package
takes its place: `runners` starts the C++ runner, under `qemu` if the processor is another one and with the emulated GPU
of `cuda` if there is none. The other modules execute what a delegate has compiled: `mil` (Core ML), `qnn` (Qualcomm),
`tosa` (Ethos-U), `vgf` (Arm's GPUs) and `vulkan`.
"""
