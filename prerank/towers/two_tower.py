"""Two towers, the fields they read and the head where they meet: every decoupled model is one of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from prerank.batch import Batch, Columns, Head, Memorising, Output, Representation, TokenTower, Tower
from prerank.layers import Embeddings, Histories
from prerank.schema import Schema


class TwoTower(nn.Module):
    """Batch -> Output, and columns of one side -> what is stored of it.

    embeddings    makes the fields; None when neither tower reads any (matrix factorisation)
    user, item    towers: fields [rows, F, D], ids [rows] -> Representation; or of tokens, see `batch.TokenTower`
    head          compares them
    guesses       true when the towers guess the other side's vectors, as DAT's do (`Representation.guess`)

    A model may be given memories (`batch.Memorising`; none at first): what they hold is read as fields of the towers.
    """

    def __init__(self, schema: Schema, embeddings: Embeddings | None, user: Tower | TokenTower, item: Tower | TokenTower,
                 head: Head) -> None:  # fmt: skip
        super().__init__()
        self.user_id, self.item_id = schema.user_id, schema.item_id
        self.embeddings = embeddings
        self.user = user
        self.item = item
        self.head = head
        self.guesses = getattr(user, "guesses", False)
        self.memories: Sequence[Memorising] = ()
        self._histories = Histories(self.user, self.item, schema.user_id, schema.item_id)

    def forward(self, batch: Batch) -> Output:
        """Encode each distinct user and item once, then compare every pair of the batch's lists."""
        if self.training:
            self._histories.leave_out(batch)
        users = self.encode("user", batch.user)  # [U, H_g, K_g] a group
        items = self.encode("item", batch.item)  # [N, H_g, K_g] a group
        logits = self.head(users, items, batch.user_index, batch.item_index)  # [B, C, T]
        return Output(logits, users, items, self.head.groups)

    def encode(self, side: Literal["user", "item"], columns: Columns) -> Representation:
        """Columns of one side -> its prepared representation, as it is stored and scored."""
        tower: Any = self.user if side == "user" else self.item
        ids = columns[self.user_id if side == "user" else self.item_id]
        if self.embeddings is not None and getattr(tower, "reads_tokens", False):
            tokens, mask = self.embeddings.tokens(side, columns)
            representation = tower(tokens, ids, mask)
        else:
            fields = self.embeddings(side, columns) if self.embeddings is not None and tower.needs_fields else None
            representation = tower(fields, ids)
        return self.head.prepare_user(representation) if side == "user" else self.head.prepare_items(representation)

    @property
    def remembers(self) -> bool:
        """Whether scores of train rows hold those rows' own labels: see layers/history.py."""
        return bool(self._histories)

    def remember(self, users: Tensor, items: Tensor, level: Tensor) -> None:
        """The train interactions, for towers with histories; see `layers.Histories`."""
        self._histories.remember(users, items, level)

    @property
    def needs_hidden(self) -> bool:
        """Whether `observe` must be given a ranking model's hidden vectors."""
        return any(memory.needs_hidden for memory in self.memories)

    @property
    def memory_names(self) -> frozenset[str]:
        """Names of the state that is memory: no weights, so that it is not averaged with them."""
        held = {id(t) for memory in self.memories for t in memory.tensors()}
        return frozenset(name for name, t in self.state_dict(keep_vars=True).items() if id(t) in held)

    @property
    def outside(self) -> Sequence[Any]:
        """Stores of its memories that lie outside the model (`store.Outside`)."""
        return [store for memory in self.memories for store in memory.outside()]

    @torch.no_grad()
    def observe(self, batch: Batch, output: Output, hidden: Tensor | None = None) -> None:
        """Let the memories learn of a batch that was scored and trained on: READ, train, THEN write.

        output   what the model said of it
        hidden   [B, C, K] a ranking model's, for a model that needs them
        """
        for memory in self.memories:
            memory.observe(batch, output, hidden)

    def reset_memory(self) -> None:
        """Forget what was observed, as each epoch must: its rows' own labels are in it."""
        for memory in self.memories:
            memory.reset()

    def fill_cold_rows(self, counts: Mapping[str, Tensor]) -> None:
        """Give the 'unknown' and 'missing' rows that training never saw the average row of their table."""
        module: Any
        for module in self.modules():
            if module is not self and hasattr(module, "fill_cold_rows"):
                module.fill_cold_rows(counts)
