"""Flows the slow and plain way: a dictionary, one packet after the other. The reference for the vectorised table."""

SECOND = 1_000_000_000
FIN, SYN, RST, ACK = 1, 2, 4, 16


def plain_flows(packets, *, length, payload_only, layer, idle, active):
    """Packets are tuples (number, time, version, protocol, source, sport, target, tport, flags, size, payload)."""
    connections, finished, late = {}, [], 0
    for number, time, version, protocol, source, sport, target, tport, flags, size, payload in packets:
        sender, receiver = (source, sport), (target, tport)
        key = (version, protocol, *sorted([sender, receiver]))
        one = connections.get(key)
        if one is not None and time < one["clock"]:
            late += 1
            time = one["clock"]
        syn_only = flags & SYN and not flags & ACK
        if one is None or time - one["clock"] > idle or (syn_only and one["closed"]):
            if one is not None:
                finished.append((key, one["client"], one["flow"]))
            one = connections[key] = {"client": sender, "told": False, "closed": False, "flow": None}
        elif time - one["flow"]["start"] > active:
            finished.append((key, one["client"], one["flow"]))
            one["flow"] = None
        if one["flow"] is None:
            one["flow"] = {"start": time, "first": number, "packets": 0, "syn": 0, "answer": 0, "kept": []}
        flow = one["flow"]
        one["clock"] = time
        if flags & SYN and not one["told"]:
            one["client"], one["told"] = receiver if flags & ACK else sender, True
        if flags & SYN:
            flow["answer" if flags & ACK else "syn"] += 1
        if flags & (FIN | RST):
            one["closed"] = True
        if payload_only and not payload:
            continue
        flow["packets"] += 1
        if len(flow["kept"]) < length:
            flow["kept"].append((size if layer == "ip" else payload, sender, time))
    finished += [(key, one["client"], one["flow"]) for key, one in connections.items()]
    result = []
    for key, client, flow in finished:
        server = key[3] if client == key[2] else key[2]
        times = [time for _, _, time in flow["kept"]]
        result.append(
            {
                "version": key[0],
                "protocol": key[1],
                "client": client,
                "server": server,
                "start": flow["start"],
                "first": flow["first"],
                "packets": flow["packets"],
                "handshake": bool(flow["syn"] and flow["answer"]),
                "size": [size for size, _, _ in flow["kept"]],
                "direction": [1 if sender == client else -1 for _, sender, _ in flow["kept"]],
                "time": times,
            }
        )
    return sorted(result, key=lambda flow: flow["first"]), late
