"""What speaking OPC UA needs: an application's own certificate, and whom it trusts."""
