"""Parts for notebooks that study how class imbalance and small data change self-supervised image representations.

params → config → data / splits → augment → encoders → methods → train → encoder file → features → probe / finetune →
metrics → results table → statistics → plots → report
"""

__version__ = "0.1.0"


def __getattr__(name):
    if name == "load_encoder":  # imported when asked for: it brings torch
        from ssl_core.encoders import load_encoder

        return load_encoder
    raise AttributeError(f"module 'ssl_core' has no attribute {name!r}")
