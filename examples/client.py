import json, sys, zmq
target, method, arguments = sys.argv[1:]
socket = zmq.Context().socket(zmq.REQ)
socket.connect("tcp://127.0.0.1:5757")
header = {"to": target, "method": method}
socket.send_multipart([b"RG1", b"ASK", b"1", json.dumps(header).encode(), arguments.encode()])
_, op, _, _, body = socket.recv_multipart()
print(op.decode(), body.decode())
