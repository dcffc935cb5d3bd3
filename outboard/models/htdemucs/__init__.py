"""HTDemucs: its windows, its network, its export. Only ``network`` and ``export`` import torch.

Source: Rouard, Massa & Défossez 2023, "Hybrid Transformers for Music Source Separation".
"""
