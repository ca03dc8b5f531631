"""Parts that several commands share.

arguments        types of flags and positional arguments, with their help; nothing here imports torch
sampler_choice   the sampler that --sampler, --steps and --budget ask for
progress         a live progress bar on a terminal, plain lines in a log
batches          resumable work on many examples, batch by batch
reference_data   real data that samples are compared with
sample_parts     samples of an evaluation, drawn part by part and shared between processes
old_spellings    words of the version before, with a warning
"""
