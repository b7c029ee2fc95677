"""A small transformer that writes one character after another, with a KV cache. It is called as those of `transformers` are."""

import math
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everyone writes it

CHARACTERS = "\n !\"&'(),-./0123456789:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
WIDTH, LAYERS, HEADS = 96, 4, 4
LONGEST = 1024  # characters of a prompt and its continuation


class CharTokenizer:
    """One token per character; what the network does not know becomes a blank."""

    eos_token_id = None

    def encode(self, text):
        return [CHARACTERS.index(character if character in CHARACTERS else " ") for character in text]

    def decode(self, tokens):
        return "".join(CHARACTERS[token] for token in tokens)


class Block(nn.Module):
    """Attention over all characters so far, then a small network."""

    def __init__(self):
        super().__init__()
        self.before_attention, self.before_network = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attend, self.join = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.network = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x, bias, past):
        """Return the new x, and this layer's keys and values, [rows, heads, characters, 24] each."""
        rows, length, _ = x.shape
        query, key, value = self.attend(self.before_attention(x)).view(rows, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        x = x + self.join(seen.transpose(1, 2).reshape(rows, length, WIDTH))
        return x + self.network(self.before_network(x)), (key, value)


class CharLM(nn.Module):
    """Logits of the next character, for each character of the input. Far characters count for less, near ones for more (ALiBi)."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(max_position_embeddings=LONGEST)
        self.embed = nn.Embedding(len(CHARACTERS), WIDTH)
        nn.init.normal_(self.embed.weight, std=0.05)  # it is the last layer too
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        places = torch.arange(LONGEST)
        distance = (places[:, None] - places).float()
        slopes = torch.tensor([2.0 ** -(2 * head) for head in range(1, HEADS + 1)])
        bias = (-slopes[:, None, None] * distance).masked_fill(distance < 0, -math.inf)
        self.register_buffer("bias", bias, persistent=False)  # [heads, LONGEST, LONGEST]

    def forward(self, input_ids, attention_mask=None, position_ids=None, past_key_values=None, use_cache=True):
        """Read `input_ids`, [rows, characters], after those of the cache; `attention_mask` is 0 where a row is padded on its left."""
        length = input_ids.shape[1]
        total = length + (past_key_values[0][0].shape[2] if past_key_values else 0)
        bias = self.bias[:, total - length : total, :total]
        if attention_mask is not None:
            bias = bias.masked_fill(attention_mask[:, None, None, :] == 0, -1e9)  # not -inf: padding sees nothing else
        x, cache = self.embed(input_ids), []
        for layer, block in enumerate(self.blocks):
            x, kept = block(x, bias, past_key_values[layer] if past_key_values else None)
            cache.append(kept)
        return SimpleNamespace(logits=self.norm(x) @ self.embed.weight.T, past_key_values=cache)
