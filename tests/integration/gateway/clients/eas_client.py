"""Use Alibaba Cloud's package on a gateway, and print what it returns; run in its own virtual environment."""

import json
import sys
import time

from eas_prediction import PredictClient, QueueClient, StringRequest
from eas_prediction.exception import PredictException

SMALL = {"task_id": "async", "prompt": "a red apple", "steps": 2, "width": 64, "height": 64, "seed": "123"}


def body(**fields: object) -> str:
    """Return a request."""
    return json.dumps({**SMALL, **fields})


class Clients:
    """Clients of one gateway."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token

    def predict(self, service: str) -> PredictClient:
        """Return a client that posts."""
        client = PredictClient(f"{self._url}/", service)
        client.set_token(self._token)
        client.init()
        return client

    def queue(self, service: str, **names: str) -> QueueClient:
        """Return a client of a queue."""
        client = QueueClient(self._url, service)
        client.set_token(self._token)
        client.init(**names)
        client.set_logger(None)
        return client


def slow(clients: Clients) -> object:
    """Call a synchronous service that takes much longer than the client's patience, which sends it again."""
    client = clients.predict("draw")
    client.set_timeout(300)
    client.set_retry_count(2000)
    reply = client.predict(StringRequest(body(task_id="slow", steps=100)))
    return json.loads(reply.response_data)


def watch(sink: QueueClient, count: int, **options: object) -> list:
    """Return results, committed one by one unless that is asked of the service."""
    frames = []
    watcher = sink.watch(0, 5, **options)
    for frame in watcher.run():
        frames.append(frame)
        if not options.get("auto_commit"):
            sink.commit(frame.index)
        if len(frames) == count:
            break
    watcher.close()
    return frames


def second_watcher(sink: QueueClient) -> list:
    """Return the error of a second watcher of one client."""
    watcher = sink.watch(0, 5, auto_commit=True)
    for _ in watcher.run():
        break
    try:
        for _ in watcher.run():
            break
    except PredictException as error:
        return [error.code, error.message]
    finally:
        watcher.close()
    return []


def drain(sink: QueueClient) -> None:
    """Empty a sink."""
    last = sink.attributes().get("stream.lastEntry")
    if last:
        sink.truncate(int(last) + 1)


def wait_for(sink: QueueClient, request_id: str) -> None:
    """Return when a result is there, without deleting it."""
    while not sink.get(request_id=request_id, auto_delete=False):
        pass


def queue(clients: Clients) -> object:
    """Do everything with queues that the package can."""
    post, inputs, sink = clients.predict("draw_async"), clients.queue("draw_async"), clients.queue("draw_async/sink")
    found = {"posted": post.predict(StringRequest(body())).response_data.decode()}
    ids = [inputs.put(body())[1] for _ in range(2)]
    frames = watch(sink, 3, auto_commit=False)
    found["watched"] = [json.loads(frame.data.decode("utf-8")) for frame in frames]
    found["put_ids"] = sorted(ids)
    found["ids"] = sorted(frame.tags["requestId"] for frame in frames if frame.tags["requestId"] in ids)
    found["after_commit"] = sink.attributes()["stream.length"]

    _, request_id = inputs.put(body(task_id="by-id"))
    wait_for(sink, request_id)
    found["by_id"] = json.loads(sink.get(request_id=request_id)[0].data)["task_id"]
    found["nothing"] = len(sink.get(request_id=request_id, timeout="100ms"))

    inputs.put(body())
    found["second_watcher"] = second_watcher(sink)
    drain(sink)

    inputs.put(body(task_id="long", steps=150))
    waiting = [inputs.put(body(task_id=name))[0] for name in ("normal", "normal")]
    found["search"] = inputs.search(waiting[1])
    found["unknown"] = inputs.search(10**9)
    _, urgent = inputs.put(body(task_id="urgent"), tags={"_priority_": "1", "color": "red"})
    frames = watch(sink, 4, auto_commit=True)
    order = [json.loads(frame.data)["task_id"] for frame in frames]
    found["first"] = order[1] if order[0] == "long" else order[0]
    found["tagged"] = [frame.tags["color"] for frame in frames if frame.tags["requestId"] == urgent]
    while sink.attributes()["stream.length"] != "0":
        pass
    found["after_auto_commit"] = sink.attributes()["stream.length"]

    ids = [inputs.put(body())[1] for _ in range(3)]
    for each in ids:
        wait_for(sink, each)
    drain(sink)
    found["after_truncate"] = sink.attributes()["stream.length"]
    stranger = clients.queue("draw_async")
    stranger.set_token("wrong")
    try:
        stranger.put(body())
    except PredictException as error:
        found["refused"] = [error.code]
    return found


def long(clients: Clients) -> object:
    """Watch for as long as it takes, whatever becomes of the connection."""
    inputs, sink = clients.queue("draw_async"), clients.queue("draw_async/sink", uid="stable")
    put = [inputs.put(body(task_id="long", steps=50))[1] for _ in range(4)]
    print("queued", flush=True)
    received = []
    watcher = sink.watch(0, 1, auto_commit=False)
    for frame in watcher.run():
        request_id = frame.tags["requestId"]
        if request_id not in received:
            received.append(request_id)
        while True:  # the package does not connect again by itself for a commit
            try:
                sink.commit(frame.index)
                break
            except PredictException:
                time.sleep(0.1)
        if len(received) == len(put):
            break
    watcher.close()
    return {"put": put, "received": received}


if __name__ == "__main__":
    part = {"slow": slow, "queue": queue, "long": long}[sys.argv[3]]
    print(json.dumps(part(Clients(sys.argv[1], sys.argv[2]))))
