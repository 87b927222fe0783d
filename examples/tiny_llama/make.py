# SPDX-License-Identifier: Apache-2.0
"""Makes this folder again: a real `save_pretrained` folder of a Llama with random weights.

    python make.py [FOLDER]
"""
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
config = LlamaConfig(vocab_size=256, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=False)
model = LlamaForCausalLM(config).to(torch.bfloat16)
model.save_pretrained(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
