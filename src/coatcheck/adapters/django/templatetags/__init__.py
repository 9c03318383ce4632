"""What templates may load: `{% load coatcheck %}`."""
