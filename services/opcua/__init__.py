"""What speaking OPC UA needs on either side: an application's own certificate, and whom it trusts."""
