"""grpcio's own clients of health and reflection."""

import unittest

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from common import *


class Health(unittest.TestCase):
    def setUp(self):
        self.channel = grpc.insecure_channel(GRPC)
        self.client = health_pb2_grpc.HealthStub(self.channel)

    def tearDown(self):
        self.channel.close()

    def test_check(self):
        for service in ["", "inference.GRPCInferenceService", "convoy.v1.ImageClassifier", "means"]:
            answer = self.client.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)
            self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING, service)
        with self.assertRaises(grpc.RpcError) as raised:
            self.client.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=60)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_watch(self):
        watch = self.client.Watch(health_pb2.HealthCheckRequest(service="means"), timeout=60)
        self.assertEqual(next(watch).status, health_pb2.HealthCheckResponse.SERVING)
        watch.cancel()


class Reflection(unittest.TestCase):
    def test_every_service_is_described(self):
        with grpc.insecure_channel(GRPC) as channel:
            services = ProtoReflectionDescriptorDatabase(channel).get_services()
            expected = {"convoy.v1.ImageClassifier", "grpc.health.v1.Health", "inference.GRPCInferenceService"}
            self.assertLessEqual(expected, set(services))
            file = served_file(channel, "convoy.v1.ImageClassifier")
        methods = file.services_by_name["ImageClassifier"].methods_by_name
        self.assertEqual(set(methods), {"Classify", "ClassifyStream", "Explain"})


main()
