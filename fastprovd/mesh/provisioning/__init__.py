"""The Provisioning protocol: PDUs, transcript, Provisioner and device machines."""
