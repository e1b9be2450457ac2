"""Rows of the tables of judgements about single flows: privacy, support, semantics and times."""

from __future__ import annotations

from jaxtraffic.report.goals import Metric

_REAL = "real"

_PRIVACY = (
    Metric(
        "privacy.closer_to_train",
        "Nearer to training than to hold-out",
        "half",
        "Share of generated flows whose nearest training flow is nearer than the nearest of equally many hold-out "
        "flows; ties count half. Above 0.5: training flows are remembered.",
        "Where hold-out comes from other captures, an honest generator exceeds 0.5 too. A few memorised flows drown.",
        stderr="privacy.closer_to_train_stderr",
        n="privacy.n",
        headline=True,
    ),
    Metric(
        "privacy.closer_to_train_strict",
        "The same, ties for hold-out",
        "",
        "As the peers count it.",
        "Repeated sequences pull it below 0.5, memory or not.",
        n="privacy.n",
    ),
    Metric(
        "privacy.tie_share",
        "Ties",
        "",
        "Share of generated flows that are as near to training as to hold-out flows.",
        "",
        n="privacy.n",
    ),
    Metric(
        "privacy.membership_auc",
        "Membership inference, AUC",
        "half",
        "An attacker guesses which real flows were trained on, from the distance to the nearest generated flow; 0.5 "
        "is guessing.",
        "One simple attack: a failure of it is no proof of privacy.",
        stderr="privacy.membership_auc_stderr",
        n="privacy.n",
    ),
    Metric(
        "fidelity.copy_rate",
        "Copies of training flows",
        _REAL,
        "Share of flows whose sequence is in the training set, bit for bit.",
        "Above real flows: the generator memorises. Below: it misses the frequent sequences.",
        section="privacy",
        n="data.n_synthetic",
        headline=True,
    ),
    Metric(
        "privacy.copy_rate",
        "Copies of an equal draw: training",
        _REAL,
        "The same against as many training flows as there are hold-out flows.",
        "Compare with the row below: frequent sequences are copied from neither.",
        n="privacy.n",
    ),
    Metric(
        "privacy.holdout_copy_rate",
        "Copies of an equal draw: hold-out",
        _REAL,
        "Share of flows whose sequence is among hold-out flows, which the generator has not seen.",
        "Says how many copies chance and habit bring.",
        n="privacy.n",
    ),
)

_SUPPORT = (
    Metric(
        "support.new_bigram_share",
        "Flows with a new pair of packets",
        _REAL,
        "Share of flows with two consecutive packets whose signed sizes never follow each other in training flows.",
        "One byte off is as new as nonsense. 0 for a copy of the training set.",
        headline=True,
    ),
    Metric(
        "support.new_value_share",
        "Flows with a value new to its class and position",
        _REAL,
        "Share of flows with a signed size that no training flow of the class has at that position.",
        "Small classes have seen little, so all is new to them.",
    ),
    Metric(
        "fidelity.distinct_share",
        "Distinct sequences",
        _REAL,
        "Share of distinct sequences among equally many flows of each set.",
        "Noise on a frequent sequence counts as new ones.",
        section="support",
        n="fidelity.n_distinct",
    ),
)

_SEMANTICS = (
    Metric(
        "semantics.impossible_share",
        "Impossible flows",
        _REAL,
        "Share of flows that break a rule which training flows keep: the rules below, and a packet at all.",
        "A few rules only: a flow that keeps them may be nonsense still.",
        headline=True,
    ),
    Metric(
        "semantics.zero_inside_share",
        "Zero inside the flow",
        _REAL,
        "Share of flows with a signed size of 0 before the last that is not.",
        "Does not see zeros at the end, which shorten a flow. Payload sizes have honest ones.",
        short="zero inside the flow",
    ),
    Metric(
        "semantics.over_mtu_share",
        "Over the MTU",
        _REAL,
        "Share of flows with a packet larger than any real one and than Ethernet carries.",
        "Sees the largest packet only.",
        short="packet over the MTU",
    ),
    Metric(
        "semantics.handshake_violation_share",
        "Handshake broken",
        _REAL,
        "Share of flows without the TCP handshake, of classes whose training flows begin with it (90 % or more).",
        "The first three packets only.",
        short="TCP handshake broken",
    ),
    Metric(
        "semantics.atom_distance",
        "Frequent exact sizes",
        "lower",
        "Total variation between the shares of the 20 most frequent exact signed sizes and of all others.",
        "Shares over all positions: a right size in the wrong place counts as right.",
        headline=True,
    ),
    Metric(
        "semantics.run_length_wasserstein",
        "Runs of one direction, packets",
        "lower",
        "Wasserstein distance of the number of packets in a row from one side.",
        "Does not see which side, nor where.",
    ),
    Metric(
        "semantics.length_wasserstein",
        "Flow length, packets",
        "lower",
        "Wasserstein distance of the number of packets a flow.",
        "Lengths beyond the last position are not told apart.",
    ),
    Metric(
        "fidelity.zero_share",
        "Packets of size 0",
        _REAL,
        "Share of packets inside a flow whose size is 0.",
        "Always 0 for real flows whose sizes include the IP header.",
        section="semantics",
    ),
    Metric(
        "fidelity.mean_packets",
        "Packets a flow",
        _REAL,
        "Mean number of packets among the first positions.",
        "A mean; the figure of flow lengths shows the rest.",
        section="semantics",
        digits=2,
    ),
)

_EQUAL = "1 minus the largest difference of the two cumulative distributions"

_TIMES = (
    Metric(
        "times.iat_ks_complement",
        "Time between packets",
        "higher",
        f"{_EQUAL} of inter-arrival times, mean over positions; 1 is equal.",
        "Sees one position at a time, and no unit: a microsecond counts as a second does.",
        headline=True,
    ),
    Metric(
        "times.class_iat_ks_complement",
        "Time between packets, by class",
        "higher",
        "The same of all times of a class, mean over classes.",
        "Classes with a handful of flows make it noisy.",
    ),
    Metric(
        "times.duration_ks_complement",
        "Duration",
        "higher",
        f"{_EQUAL} of the time from the first packet to the last one kept.",
        "A sum: wrong times in the right total pass.",
    ),
    Metric(
        "times.class_duration_ks_complement",
        "Duration, by class",
        "higher",
        "The same within classes, mean over classes.",
        "Classes with a handful of flows make it noisy.",
    ),
)

FLOW_METRICS = (*_PRIVACY, *_SUPPORT, *_SEMANTICS, *_TIMES)
"""Privacy, support, semantics and times."""
