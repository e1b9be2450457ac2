"""Class-conditional Markov chains over a few signed sizes: probabilities, samples and information in closed form."""

import dataclasses

import numpy as np

from jaxtraffic.series import PacketSeries


@dataclasses.dataclass(frozen=True)
class MarkovSource:
    """Flows of at most `length` packets; state k is the size sizes[k], and the last state ends the flow.

    start [class, state + 1] are the probabilities of the first packet (or none), move [class, state, state + 1] those
    of the next one, prior [class] the shares of the classes.
    """

    start: np.ndarray
    move: np.ndarray
    prior: np.ndarray
    sizes: np.ndarray
    length: int

    @property
    def end(self):
        return len(self.sizes)

    def next_log_prob(self, state):
        """log p(next state | state, class) [n, class, state + 1] of states [n]; None is the start."""
        with np.errstate(divide="ignore"):
            return np.log(self.start[None] if state is None else np.moveaxis(self.move, 1, 0)[state])

    def sample(self, n, seed):
        """n flows, classes drawn from the prior; n_packets may be anything from 0 to length."""
        generator = np.random.default_rng(seed)
        label = generator.choice(len(self.prior), n, p=self.prior)
        states = np.full((n, self.length), self.end)
        table = np.concatenate([self.start[:, None], self.move], axis=1)
        previous, alive = np.full(n, -1), np.ones(n, bool)
        for t in range(self.length):
            shares = np.cumsum(table[label, previous + 1], axis=1)
            drawn = np.minimum((shares < generator.random((n, 1))).sum(axis=1), self.end)
            states[:, t] = np.where(alive, drawn, self.end)
            alive &= drawn != self.end
            previous = np.where(alive, drawn, -1)
        return self.series(states, label)

    def series(self, states, label):
        mask = states != self.end
        signed = np.where(mask, np.append(self.sizes, 0)[states], 0)
        return PacketSeries(
            size=np.abs(signed).astype(np.int16),
            direction=np.where(mask, np.sign(signed), 0).astype(np.int8),
            iat=np.zeros(states.shape, np.float32),
            label=np.asarray(label, np.int32),
            class_names=tuple(f"chain {y}" for y in range(len(self.prior))),
            name="markov",
            source="simulated",
        ).check()

    def log_prob_steps(self, flows, labels=None):
        """[flow, T] nats, packet by packet; without labels of the mixture of the classes."""
        signed, mask = np.asarray(flows.signed_size), np.asarray(flows.mask)
        states = np.where(mask, (signed[:, :, None] == self.sizes).argmax(axis=2), self.end)
        rows, out = np.arange(len(flows)), np.zeros(signed.shape)
        alive, before = np.ones(len(flows), bool), np.tile(np.log(self.prior), (len(flows), 1))
        for t, state in enumerate(states.T):
            # After the end nothing is said; the state asked about then is one that exists, and does not count.
            previous = None if t == 0 else np.where(alive, states[:, t - 1], 0)
            step = np.where(alive[:, None], self.next_log_prob(previous)[rows if t else 0 * rows, :, state], 0.0)
            after = before + step
            mixed = np.logaddexp.reduce(after, axis=1) - np.logaddexp.reduce(before, axis=1)
            out[:, t] = mixed if labels is None else step[rows, labels]
            before, alive = after, alive & (state != self.end)
        return out

    def sequences(self):
        """All sequences: states [sequence, T] and log p(sequence | class) [sequence, class]."""
        states, log_prob = np.zeros((1, 0), int), np.zeros((1, len(self.prior)))
        for t in range(self.length):
            alive = np.ones(len(states), bool) if t == 0 else states[:, -1] != self.end
            step = self.next_log_prob(None if t == 0 else states[alive, -1])
            grown = (log_prob[alive][:, :, None] + step).transpose(0, 2, 1).reshape(-1, len(self.prior))
            children = np.repeat(states[alive], self.end + 1, axis=0)
            children = np.column_stack([children, np.tile(np.arange(self.end + 1), alive.sum())])
            over = np.column_stack([states[~alive], np.full((~alive).sum(), self.end)])
            states, log_prob = np.concatenate([children, over]), np.concatenate([grown, log_prob[~alive]])
        return states, log_prob

    def information(self):
        """I(first t packets; class) for t = 1..T [T] nats, by summing over all beginnings."""
        values = []
        for t in range(1, self.length + 1):
            _, log_prob = dataclasses.replace(self, length=t).sequences()
            joint = np.exp(log_prob) * self.prior
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = log_prob - np.log(joint.sum(axis=1, keepdims=True))
            values.append(float(np.where(joint > 0, joint * ratio, 0.0).sum()))
        return np.array(values)


def chains(length=5, seed=0, sharpness=1.0):
    """Three chains over four sizes whose flows end at random."""
    generator = np.random.default_rng(seed)

    def shares(*shape):
        drawn = generator.gamma(1 / sharpness, size=shape)
        drawn[..., -1] = 0.15 * drawn[..., :-1].sum(axis=-1)
        return drawn / drawn.sum(axis=-1, keepdims=True)

    return MarkovSource(
        start=shares(3, 5),
        move=shares(3, 4, 5),
        prior=np.array([0.5, 0.3, 0.2]),
        sizes=np.array([52, -52, 1500, -120]),
        length=length,
    )
