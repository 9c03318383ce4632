"""The pages of the test project."""

from django.contrib import admin
from django.urls import path

from . import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("login/", views.log_in),
    path("alogin/", views.alog_in),
    path("logout/", views.log_out),
    path("alogout/", views.alog_out),
    path("who/", views.who),
    path("awho/", views.awho),
    path("count/", views.count),
    path("acount/", views.acount),
    path("raise/", views.fails),
    path("message/", views.message),
    path("messages/", views.messages_page),
    path("saved/", views.saved),
    path("restarted/", views.restarted),
    path("unkeepable/", views.unkeepable),
    path("closing/", views.closing),
    path("replaced/", views.replaced),
    path("savedtwice/", views.saved_twice),
    path("swapped/", views.swapped),
    path("expiry/", views.expiry),
    path("stream/", views.stream),
    path("private/", views.private),
]
