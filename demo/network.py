"""The demo model's forward pass for training: Qwen3 in plain torch with bfloat16 products, exported by name."""

import torch
from torch import Tensor, nn
from transformers import Qwen3Config

_EPS = 1e-6
_ROPE_THETA = 10000.0
_MAX_TOKENS = 1024  # in training; rotations are relative, and the model may run longer


def make_config(vocab_size: int, *, eos_token_id: int, pad_token_id: int) -> Qwen3Config:
    """The architecture: about four million parameters."""
    return Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        rms_norm_eps=_EPS,
        rope_parameters={"rope_type": "default", "rope_theta": _ROPE_THETA},
        eos_token_id=eos_token_id,
        bos_token_id=None,
        pad_token_id=pad_token_id,
    )


class Attention(nn.Module):
    """Causal grouped-query attention with normalised queries and keys."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        assert config.head_dim is not None
        assert config.num_key_value_heads is not None
        self.head_dim = config.head_dim
        q_size, kv_size = config.num_attention_heads * self.head_dim, config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, q_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, kv_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, kv_size, bias=False)
        self.o_proj = nn.Linear(q_size, config.hidden_size, bias=False)
        self.q_norm = _Norm(self.head_dim)
        self.k_norm = _Norm(self.head_dim)
        self.sizes = [q_size, kv_size, kv_size]

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x: [num_seqs, num_tokens, hidden_size]; cos, sin: [num_tokens, head_dim]."""
        weight = torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight]).to(x.dtype)
        parts = torch.split(nn.functional.linear(x, weight), self.sizes, dim=-1)
        heads = [torch.unflatten(part, -1, (-1, self.head_dim)) for part in parts]
        q = _rotate(self.q_norm(heads[0]).transpose(1, 2), cos, sin)
        k = _rotate(self.k_norm(heads[1]).transpose(1, 2), cos, sin)
        v = heads[2].transpose(1, 2)
        groups = q.shape[1] // k.shape[1]
        k, v = (part.repeat_interleave(groups, dim=1) for part in (k, v))
        # In float32: the backward of the bfloat16 kernel takes thrice as long on a CPU.
        mixed = nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True).to(x.dtype)
        return nn.functional.linear(mixed.transpose(1, 2).flatten(2), self.o_proj.weight.to(x.dtype))


class FeedForward(nn.Module):
    """The gated feed-forward part of a layer."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: [num_seqs, num_tokens, hidden_size]."""
        weight = torch.cat([self.gate_proj.weight, self.up_proj.weight]).to(x.dtype)
        gate, up = nn.functional.linear(x, weight).chunk(2, dim=-1)
        return nn.functional.linear(nn.functional.silu(gate) * up, self.down_proj.weight.to(x.dtype))


class Layer(nn.Module):
    """Attention and feed-forward, each on the normalised residual stream."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = FeedForward(config)
        self.input_layernorm = _Norm(config.hidden_size)
        self.post_attention_layernorm = _Norm(config.hidden_size)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x: [num_seqs, num_tokens, hidden_size]."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        output: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return output


class Network(nn.Module):
    """The layers between the token ids and the last hidden state; names follow `Qwen3Model`."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        assert config.head_dim is not None
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = _Norm(config.hidden_size)
        cos, sin = _rotations(config.head_dim, _MAX_TOKENS)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        _initialise(self)

    def forward(self, ids: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        """The normalised last hidden state.

        ids:     [num_seqs, num_tokens], padded on the right
        returns: [num_seqs, num_tokens, hidden_size]
        """
        x = self.embed_tokens(ids).to(dtype)
        cos, sin = (table[: ids.shape[1]].to(dtype) for table in (self.cos, self.sin))
        for layer in self.layers:
            x = layer(x, cos, sin)
        hidden: Tensor = self.norm(x)
        return hidden

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The summed cross-entropy of these positions.

        hidden:  [num_tokens, hidden_size]
        targets: [num_tokens]
        """
        logits = nn.functional.linear(hidden, self.embed_tokens.weight.to(hidden.dtype))
        return nn.functional.cross_entropy(logits.float(), targets, reduction="sum")


class _Norm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + _EPS)
        normed: Tensor = (scaled * self.weight).to(x.dtype)
        return normed


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def _rotations(head_dim: int, num_tokens: int) -> tuple[Tensor, Tensor]:
    frequencies = _ROPE_THETA ** (-torch.arange(0, head_dim, 2).float() / head_dim)
    angles = torch.outer(torch.arange(num_tokens).float(), frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()


def _initialise(network: Network) -> None:
    for name, weight in network.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.zeros_(weight)
        elif weight.ndim == 2:
            nn.init.normal_(weight, std=0.02 if "embed" in name else weight.shape[1] ** -0.5)
